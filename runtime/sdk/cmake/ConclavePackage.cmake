# What `cmake --install` puts where, and the packages made of it. Components:
#   library  libconclave.so, for programs that run         command  the program
#   dev      headers, libconclave.a, the CMake package     plugins  those that come with Conclave
#            and conclave.pc                               sdk      headers to write plugins with
set(libdir ${CMAKE_INSTALL_LIBDIR})
set(includedir ${CMAKE_INSTALL_INCLUDEDIR})
set(packagedir ${libdir}/cmake/conclave)

install(TARGETS conclave_shared EXPORT conclaveSharedTargets
        LIBRARY DESTINATION ${libdir} COMPONENT library NAMELINK_COMPONENT dev)
install(TARGETS conclave_static EXPORT conclaveStaticTargets
        ARCHIVE DESTINATION ${libdir} COMPONENT dev)
install(TARGETS conclave_plugin EXPORT conclavePluginTargets COMPONENT sdk)

# conclave_install_headers(COMPONENT paths...): as they lie in the tree, so that they find each other.
function(conclave_install_headers component)
    foreach(header ${ARGN})
        get_filename_component(folder ${header} DIRECTORY)
        install(FILES ${PROJECT_SOURCE_DIR}/${header} COMPONENT ${component}
                DESTINATION ${includedir}/conclave-sdk/${folder})
    endforeach()
endfunction()

install(FILES runtime/api/conclave.h runtime/api/conclave_mpi.h DESTINATION ${includedir} COMPONENT dev)
# The C++ interface, and all that it includes.
file(GLOB interface RELATIVE ${PROJECT_SOURCE_DIR} CONFIGURE_DEPENDS runtime/api/conclave*.hpp)
conclave_install_headers(dev ${interface}
    runtime/base/error.h runtime/base/log_level.h runtime/base/visibility.h runtime/comm/transport.h
    runtime/engine/conformance/report.h runtime/engine/types.h)
# <conclave/plugin.h>, and all that it includes.
conclave_install_headers(sdk
    quant/activation.h quant/activation_rule.h quant/codec.h quant/encoding.h quant/grouping.h
    quant/kernel.h quant/kernels/vector_ops/op.h quant/method.h quant/quantization_config.h
    quant/quantize_row.h
    runtime/base/cpu.h runtime/base/error.h runtime/base/executor.h runtime/base/half.h
    runtime/base/interval.h runtime/base/json.h runtime/base/visibility.h runtime/base/workspace.h
    sharding/checkpoint/reader.h sharding/shard_indexer.h)
install(FILES runtime/sdk/conclave/plugin.h COMPONENT sdk
        DESTINATION ${includedir}/conclave-sdk/conclave)

include(CMakePackageConfigHelpers)
set(generated ${PROJECT_BINARY_DIR}/package)
configure_package_config_file(runtime/sdk/cmake/conclaveConfig.cmake.in
    ${generated}/conclaveConfig.cmake INSTALL_DESTINATION ${packagedir})
write_basic_package_version_file(${generated}/conclaveConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)
# Both components need the package's own files: each alone is whole.
foreach(component dev sdk)
    install(FILES ${generated}/conclaveConfig.cmake ${generated}/conclaveConfigVersion.cmake
            runtime/sdk/cmake/ConclavePlugin.cmake
            DESTINATION ${packagedir} COMPONENT ${component})
endforeach()
foreach(kind Shared Static)
    install(EXPORT conclave${kind}Targets NAMESPACE conclave:: DESTINATION ${packagedir}
            COMPONENT dev)
endforeach()
install(EXPORT conclavePluginTargets NAMESPACE conclave:: DESTINATION ${packagedir} COMPONENT sdk)

# conclave.pc finds the prefix from where it lies itself, unless the folders are absolute.
set(pc_prefix ${CMAKE_INSTALL_PREFIX})
if(NOT IS_ABSOLUTE ${libdir})
    file(RELATIVE_PATH up /${libdir}/pkgconfig /)
    string(REGEX REPLACE "/$" "" up ${up})
    set(pc_prefix \${pcfiledir}/${up})
endif()
foreach(folder libdir includedir)
    set(pc_${folder} ${${folder}})
    if(NOT IS_ABSOLUTE ${${folder}})
        set(pc_${folder} \${prefix}/${${folder}})
    endif()
endforeach()
# What libconclave.a needs. No Requires.private: pkg-config would ask for their files of those who
# link libconclave.so too.
set(pc_private -ltbb -lspdlog)
get_target_property(spdlog_needs spdlog::spdlog INTERFACE_LINK_LIBRARIES)
if("${spdlog_needs}" MATCHES "fmt::fmt")
    list(APPEND pc_private -lfmt)
endif()
list(APPEND pc_private -lutf8proc -lpcre2-8)
if(CONCLAVE_WITH_MPI)
    foreach(library ${MPI_C_LIBRARIES})
        get_filename_component(folder ${library} DIRECTORY)
        get_filename_component(name ${library} NAME_WE)
        string(REGEX REPLACE "^lib" "-l" name ${name})
        list(APPEND pc_private -L${folder} ${name})
    endforeach()
endif()
list(APPEND pc_private -lstdc++ -lm -ldl -lpthread)
list(JOIN pc_private " " pc_private)
configure_file(runtime/sdk/cmake/conclave.pc.in ${generated}/conclave.pc @ONLY)
install(FILES ${generated}/conclave.pc DESTINATION ${libdir}/pkgconfig COMPONENT dev)

if(CONCLAVE_IS_TOP_LEVEL)  # `cpack` in the build folder: Debian packages conclave and conclave-dev
    set(CPACK_GENERATOR DEB)
    set(CPACK_PACKAGE_VENDOR Conclave)
    set(CPACK_PACKAGE_CONTACT "The Conclave project")
    set(CPACK_STRIP_FILES ON)
    set(CPACK_DEB_COMPONENT_INSTALL ON)
    foreach(component LIBRARY COMMAND PLUGINS)
        set(CPACK_COMPONENT_${component}_GROUP runtime)
    endforeach()
    foreach(component DEV SDK)
        set(CPACK_COMPONENT_${component}_GROUP development)
    endforeach()
    set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
    set(CPACK_DEBIAN_PACKAGE_SECTION science)
    set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
    set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME conclave)
    set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME conclave-dev)
    set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
    set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "conclave (= ${PROJECT_VERSION})")
    # To link libconclave.a, to include conclave_mpi.h, to write plugins.
    set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SUGGESTS "libtbb-dev, libspdlog-dev, libutf8proc-dev, \
libpcre2-dev, libopenmpi-dev, nlohmann-json3-dev")
    if(CONCLAVE_WITH_MPI)
        set(CPACK_DEBIAN_RUNTIME_PACKAGE_RECOMMENDS openmpi-bin)
    endif()
    include(CPack)
endif()
