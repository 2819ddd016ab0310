# conclave_add_plugin(NAME sources...): a plugin, NAME.so. In Conclave's own tree it is built into
# plugins/ of the build, elsewhere it is installed to lib/conclave/plugins: where the command looks.
function(conclave_add_plugin name)
    if(NOT TARGET conclave::plugin)
        message(FATAL_ERROR "plugins need nlohmann_json and Conclave's headers for them (the "
                            "component sdk of its installation)")
    endif()
    add_library(${name} MODULE ${ARGN})
    target_link_libraries(${name} PRIVATE conclave::plugin)
    # Contracted products and sums would give other numbers than the format defines.
    target_compile_options(${name} PRIVATE -ffp-contract=off)
    set_target_properties(${name} PROPERTIES PREFIX "" SUFFIX .so CXX_EXTENSIONS OFF
        CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON POSITION_INDEPENDENT_CODE ON)
    if(CONCLAVE_SANITIZE)
        target_compile_options(${name} PRIVATE -fsanitize=${CONCLAVE_SANITIZE}
                               -fno-omit-frame-pointer -g)
        target_link_options(${name} PRIVATE -fsanitize=${CONCLAVE_SANITIZE})
    else()
        # A plugin links with nothing of the engine; what it lacks is an error here, not at loading.
        target_link_options(${name} PRIVATE -Wl,-z,defs)
    endif()
    if(TARGET conclave_plugins)
        set_target_properties(${name} PROPERTIES
                              LIBRARY_OUTPUT_DIRECTORY ${conclave_BINARY_DIR}/plugins)
        add_dependencies(conclave_plugins ${name})
    endif()
    if(NOT TARGET conclave_plugins)
        install(TARGETS ${name} LIBRARY DESTINATION ${conclave_PLUGIN_DIR} COMPONENT plugins)
    elseif(CONCLAVE_INSTALL)
        install(TARGETS ${name} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/conclave/plugins
                COMPONENT plugins)
    endif()
endfunction()
