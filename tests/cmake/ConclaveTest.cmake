# conclave_test(name SOURCES a.cpp ... LIBS conclave_x ... [LABELS l ...] [TIMEOUT s]
#               [MPIRANKS 2 3 ...])
# One gtest executable. Without MPIRANKS every case becomes a ctest test of its own; with it, one
# launch per rank count runs the whole binary under mpirun (its main is tests/support/mpi_main.cpp).
set(CONCLAVE_MPI_ENVIRONMENT
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
    OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_hwloc_base_binding_policy=none)

function(conclave_test name)
    cmake_parse_arguments(T "" "TIMEOUT" "SOURCES;LIBS;LABELS;MPIRANKS" ${ARGN})
    if(NOT T_TIMEOUT)
        set(T_TIMEOUT 300)
    endif()
    add_executable(${name} ${T_SOURCES})
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
    target_compile_options(${name} PRIVATE -Wall -Wextra
                           $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)  # GCC bug 105651
    target_compile_definitions(${name} PRIVATE
        CONCLAVE_SOURCE_DIR="${PROJECT_SOURCE_DIR}" CONCLAVE_BINARY_DIR="${PROJECT_BINARY_DIR}")
    target_link_libraries(${name} PRIVATE ${T_LIBS})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    if(T_MPIRANKS)
        target_sources(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/support/mpi_main.cpp)
        target_link_libraries(${name} PRIVATE GTest::gtest MPI::MPI_C)
        foreach(ranks ${T_MPIRANKS})
            add_test(NAME ${name}.r${ranks}
                     COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} $<TARGET_FILE:${name}>)
            set_tests_properties(${name}.r${ranks} PROPERTIES
                PROCESSORS 2 TIMEOUT ${T_TIMEOUT} LABELS "mpi;r${ranks};${T_LABELS}"
                ENVIRONMENT "${CONCLAVE_MPI_ENVIRONMENT}")
        endforeach()
    else()
        target_link_libraries(${name} PRIVATE GTest::gtest_main)
        include(GoogleTest)
        gtest_discover_tests(${name} TEST_PREFIX ${name}. DISCOVERY_TIMEOUT 60
            PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS "${T_LABELS}")
    endif()
endfunction()
