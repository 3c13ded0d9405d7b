{
  "includes": ["native/sources.gypi"],
  "targets": [
    {
      "target_name": "fdmove",
      "sources": ["<@(core_sources)", "<@(binding_sources)"],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")", "native"],
      "defines": ["NAPI_VERSION=8", "NAPI_DISABLE_CPP_EXCEPTIONS", "_GNU_SOURCE"],
      "cflags_cc": ["-std=c++20", "-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-fvisibility=hidden"],
      "cflags_cc!": ["-std=gnu++17", "-fno-exceptions"],
      "ldflags": ["-Wl,--exclude-libs,ALL", "-Wl,-z,now"]
    }
  ]
}
