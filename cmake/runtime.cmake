# The runtime: freestanding C, compiled by clang for each architecture.
#   library part  an archive: what generated code calls. Linkers take only the members that are needed.
#                 Its own calls of memcpy and friends are renamed, so that nothing of a host program binds to them.
#   program part  one relocatable object: _start and the program around a model.
#   cuda, host    archives: the device below models whose kernels run on a GPU, or on this CPU in its place (x86-64).
#   libc          a library in whose place the system's libc is loaded: what the part cuda needs of it.
# All are embedded in burin (runtime/embed/embed.h). burin_host is the pthread pool offered to host programs.
find_program(RT_CC NAMES clang-19 REQUIRED)
find_program(RT_AR NAMES llvm-ar-19 REQUIRED)
find_program(RT_OBJCOPY NAMES llvm-objcopy-19 REQUIRED)

set(rt_x86_64_flags --target=x86_64-linux-gnu -march=x86-64)
set(rt_aarch64_flags --target=aarch64-linux-gnu -march=armv8-a -mno-outline-atomics)
set(rt_arm_flags --target=armv7-linux-gnueabihf -march=armv7-a -mfpu=neon -mfloat-abi=hard)
set(rt_flags -std=gnu11 -O2 -ffreestanding -fno-builtin -nostdlib -nostdinc -fPIC -fvisibility=hidden
    -ffunction-sections -fdata-sections -fno-stack-protector -fno-ident -fomit-frame-pointer
    -fno-unwind-tables -fno-asynchronous-unwind-tables -fno-strict-aliasing -ffp-contract=off
    -Wall -Wextra -Werror -Wno-unused-parameter -Wshadow)
execute_process(COMMAND ${RT_CC} -print-resource-dir OUTPUT_VARIABLE rt_resources
                OUTPUT_STRIP_TRAILING_WHITESPACE)
find_path(XXHASH_INCLUDE xxhash.h REQUIRED) # a header is all that weights.c takes of it
configure_file(${XXHASH_INCLUDE}/xxhash.h ${CMAKE_BINARY_DIR}/runtime/include/xxhash.h COPYONLY)
list(APPEND rt_flags -isystem ${rt_resources}/include -I ${CMAKE_SOURCE_DIR}
     -isystem ${CMAKE_BINARY_DIR}/runtime/include -isystem ${CMAKE_SOURCE_DIR}/runtime/libc
     -ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)

file(GLOB rt_ops CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/runtime/ops/*.c ${CMAKE_SOURCE_DIR}/runtime/text/*.c)
file(GLOB rt_program CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/runtime/program/*.c)
file(GLOB rt_image CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/runtime/image/*.c)
list(APPEND rt_program ${CMAKE_SOURCE_DIR}/runtime/core/outfile.c ${rt_image})
set(rt_library ${CMAKE_SOURCE_DIR}/runtime/core/cpu.c ${CMAKE_SOURCE_DIR}/runtime/core/parallel.c
    ${CMAKE_SOURCE_DIR}/runtime/core/defaults.c ${CMAKE_SOURCE_DIR}/runtime/core/failure.c ${CMAKE_SOURCE_DIR}/runtime/core/memory.c
    ${CMAKE_SOURCE_DIR}/runtime/core/memory_libc.c ${CMAKE_SOURCE_DIR}/runtime/core/weights.c
    ${rt_ops} ${rt_image})
set(rt_device_cuda driver_open device memory graph run)
set(rt_device_host stand_in block)
set(rt_out ${CMAKE_BINARY_DIR}/runtime)

# rt_compile(ARCH OUT_LIST SOURCES…): one object per source
function(rt_compile arch part out_list)
  set(objects)
  foreach(src ${ARGN})
    get_filename_component(stem ${src} NAME_WE)
    set(obj ${rt_out}/${arch}/${part}/${stem}.o)
    set(rename)
    if(NOT part STREQUAL program AND NOT stem MATCHES "^(memory_libc|libc_names)$")
      set(rename COMMAND ${RT_OBJCOPY} --redefine-sym memcpy=burin_rt_memcpy
          --redefine-sym memset=burin_rt_memset --redefine-sym memmove=burin_rt_memmove
          --redefine-sym memcmp=burin_rt_memcmp ${obj})
    endif()
    add_custom_command(
      OUTPUT ${obj}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${rt_out}/${arch}/${part}
      COMMAND ${RT_CC} ${rt_${arch}_flags} ${rt_flags} -MD -MF ${obj}.d -c ${src} -o ${obj}
      ${rename}
      DEPENDS ${src} DEPFILE ${obj}.d VERBATIM)
    list(APPEND objects ${obj})
  endforeach()
  set(${out_list} ${objects} PARENT_SCOPE)
endfunction()

# rt_archive(ARCHIVE OBJECTS…)
function(rt_archive archive)
  add_custom_command(OUTPUT ${archive}
    COMMAND ${CMAKE_COMMAND} -E rm -f ${archive}
    COMMAND ${RT_AR} rcsD ${archive} ${ARGN} DEPENDS ${ARGN} VERBATIM)
endfunction()

set(rt_embedded)
foreach(arch x86_64 aarch64 arm)
  set(extra)
  if(arch STREQUAL arm)
    set(extra ${CMAKE_SOURCE_DIR}/runtime/core/arm_builtins.c)
  endif()
  rt_compile(${arch} library objects ${rt_library} ${extra})
  set(archive ${rt_out}/burin_rt_${arch}.a)
  rt_archive(${archive} ${objects})
  rt_compile(${arch} program objects ${rt_program})
  set(program ${rt_out}/burin_program_${arch}.o)
  add_custom_command(OUTPUT ${program}
    COMMAND ${LLD} -r -o ${program} ${objects} DEPENDS ${objects} VERBATIM)
  list(APPEND rt_embedded ${archive} ${program})
endforeach()
foreach(device cuda host)
  list(TRANSFORM rt_device_${device} REPLACE "(.+)" "${CMAKE_SOURCE_DIR}/runtime/cuda/\\1.c" OUTPUT_VARIABLE sources)
  rt_compile(x86_64 ${device} objects ${sources})
  rt_archive(${rt_out}/burin_${device}_x86_64.a ${objects})
  list(APPEND rt_embedded ${rt_out}/burin_${device}_x86_64.a)
endforeach()
rt_compile(x86_64 libc objects ${CMAKE_SOURCE_DIR}/runtime/cuda/libc_names.c)
add_custom_command(OUTPUT ${rt_out}/burin_libc_x86_64.so
  COMMAND ${LLD} -shared -soname=libc.so.6 --hash-style=gnu -s -o ${rt_out}/burin_libc_x86_64.so ${objects}
  DEPENDS ${objects} VERBATIM)
list(APPEND rt_embedded ${rt_out}/burin_libc_x86_64.so)
add_custom_target(runtime_objects DEPENDS ${rt_embedded})

add_library(burin_runtime STATIC runtime/embed/embed.c)
target_compile_definitions(burin_runtime PRIVATE BURIN_RT_DIR="${rt_out}")
set_source_files_properties(runtime/embed/embed.c PROPERTIES OBJECT_DEPENDS "${rt_embedded}")

add_library(burin_host STATIC runtime/host_pool.c runtime/host_heap.c)
target_link_libraries(burin_host PUBLIC Threads::Threads)
add_library(burin_host_shared SHARED runtime/host_pool.c runtime/host_heap.c) # for the Python package
set_target_properties(burin_host_shared PROPERTIES OUTPUT_NAME burin_host
                      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
target_link_libraries(burin_host_shared PRIVATE Threads::Threads)
