# Finds the TensorFlow that Python would import, without importing it.
# Gives the target TensorFlow::TensorFlow and TensorFlow_VERSION.
execute_process(
  COMMAND ${Python_EXECUTABLE} -c [=[
import importlib.metadata, importlib.util
spec = importlib.util.find_spec("tensorflow")
if spec is None:
    raise SystemExit("no module named tensorflow")
for name in ("tensorflow-cpu", "tensorflow"):
    try:
        version = importlib.metadata.version(name)
        break
    except importlib.metadata.PackageNotFoundError:
        continue
else:
    raise SystemExit("tensorflow is importable, but neither tensorflow-cpu nor tensorflow is installed")
print(spec.submodule_search_locations[0], version, sep=";", end="")
]=]
  OUTPUT_VARIABLE _tensorflow ERROR_VARIABLE _tensorflow_error RESULT_VARIABLE _tensorflow_result)
if(_tensorflow_result)
  message(FATAL_ERROR "TensorFlow is needed to build merlin_models: install tensorflow-cpu==2.21.* into "
                      "${Python_EXECUTABLE}'s environment. ${_tensorflow_error}")
endif()
list(GET _tensorflow 0 TensorFlow_ROOT_DIR)
list(GET _tensorflow 1 TensorFlow_VERSION)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorFlow REQUIRED_VARS TensorFlow_ROOT_DIR VERSION_VAR TensorFlow_VERSION)

add_library(TensorFlow::TensorFlow INTERFACE IMPORTED)
target_include_directories(TensorFlow::TensorFlow SYSTEM INTERFACE ${TensorFlow_ROOT_DIR}/include)
target_compile_definitions(TensorFlow::TensorFlow INTERFACE _GLIBCXX_USE_CXX11_ABI=1 EIGEN_MAX_ALIGN_BYTES=64)
target_link_libraries(TensorFlow::TensorFlow INTERFACE ${TensorFlow_ROOT_DIR}/libtensorflow_framework.so.2
                                                       ${TensorFlow_ROOT_DIR}/libtensorflow_cc.so.2)
