# With CATSERVE_STATIC a program holds what it is linked with, so that it runs on another Linux: an
# imported library gives way to the archive beside it where there is one (libx.so.1.2 to libx.a).
# What has none, and OpenSSL, is looked for in ../lib, seen from the program.
#
#   include(cmake/StaticLibraries.cmake)  -> before the first find_package
#   catserve_prefer_archives(directory)   -> once every folder has found its packages

if(CATSERVE_STATIC)
  # What server and client share, so that a folder of both holds it once.
  find_library(OPENSSL_CRYPTO_LIBRARY NAMES libcrypto.so)
  find_library(OPENSSL_SSL_LIBRARY NAMES libssl.so)
  set(CMAKE_FIND_LIBRARY_SUFFIXES .a .so)
  set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)
  set(CMAKE_BUILD_RPATH "$ORIGIN/../lib")
endif()

function(catserve_prefer_archives directory)
  get_property(targets DIRECTORY ${directory} PROPERTY IMPORTED_TARGETS)
  foreach(target ${targets})
    get_target_property(configurations ${target} IMPORTED_CONFIGURATIONS)
    foreach(configuration ${configurations})
      set(property IMPORTED_LOCATION_${configuration})
      get_target_property(library ${target} ${property})
      if(library MATCHES "\\.so[.0-9]*$")
        string(REGEX REPLACE "\\.so[.0-9]*$" ".a" archive ${library})
        if(EXISTS ${archive})
          set_target_properties(${target} PROPERTIES ${property} ${archive})
        endif()
      endif()
    endforeach()
  endforeach()
  get_property(folders DIRECTORY ${directory} PROPERTY SUBDIRECTORIES)
  foreach(folder ${folders})
    catserve_prefer_archives(${folder})
  endforeach()
endfunction()
