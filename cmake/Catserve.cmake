# One target per folder, so that a wrong dependency fails to link.
#
#   catserve_library(NAME text SOURCES ... DEPS ...)         -> target catserve_text
#   catserve_test(NAME tokenizer_test SOURCES ... DEPS ...)  -> a ctest of that name

function(catserve_library)
  cmake_parse_arguments(A "" "NAME" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(catserve_${A_NAME} STATIC ${A_SOURCES})
  target_include_directories(catserve_${A_NAME} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(catserve_${A_NAME} PUBLIC ${A_DEPS} PRIVATE catserve_warnings
                                           ${A_PRIVATE_DEPS})
endfunction()

function(catserve_test)
  cmake_parse_arguments(A "NO_MAIN" "NAME;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT BUILD_TESTING)
    return()
  endif()
  add_executable(${A_NAME} ${A_SOURCES})
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} catserve_warnings GTest::gmock GTest::gtest)
  if(NOT A_NO_MAIN)
    target_link_libraries(${A_NAME} PRIVATE GTest::gtest_main)
  endif()
  target_compile_definitions(${A_NAME} PRIVATE
    CATSERVE_SOURCE_DIR="${PROJECT_SOURCE_DIR}" CATSERVE_BINARY_DIR="${PROJECT_BINARY_DIR}")
  add_test(NAME ${A_NAME} COMMAND ${A_NAME} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${A_NAME} PROPERTIES TIMEOUT 900)
  if(A_TIMEOUT)
    set_tests_properties(${A_NAME} PROPERTIES TIMEOUT ${A_TIMEOUT})
  endif()
endfunction()
