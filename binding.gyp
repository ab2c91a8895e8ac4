{
  "target_defaults": {
    "defines": ["_GNU_SOURCE"],
    "cflags!": ["-O3"],
    "cflags_cc!": ["-std=gnu++17", "-O3"],
    "cflags_cc": [
      "-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-exceptions", "-fvisibility=hidden", "-pthread"
    ],
    "ldflags": ["-pthread"]
  },
  "targets": [
    {
      "target_name": "tidemark",
      "sources": [
        "native/binding/addon.cc",
        "native/binding/journal_object.cc",
        "native/binding/js_link.cc",
        "native/binding/js_options.cc",
        "native/binding/pool_object.cc",
        "native/binding/region_object.cc",
        "native/binding/volume_object.cc",
        "native/device/device_backing.cc",
        "native/extent/extent_table.cc",
        "native/extent/fault_queue.cc",
        "native/extent/range_lock.cc",
        "native/frontend/fuse_session.cc",
        "native/frontend/receive_buffer.cc",
        "native/journal/journal.cc",
        "native/journal/region_record.cc",
        "native/journal/segment_store.cc",
        "native/pool/mapping_log.cc",
        "native/pool/pool.cc",
        "native/sys/crc32c.cc",
        "native/sys/data_sync.cc",
        "native/sys/file_size.cc",
        "native/sys/holders.cc",
        "native/sys/keeper.cc",
        "native/sys/keeper_program.cc",
        "native/sys/keeper_socket.cc",
        "native/sys/loop_device.cc",
        "native/sys/mount_point.cc",
        "native/sys/process_memory.cc",
        "native/sys/shared_mapping.cc",
        "native/volume/backing_sync.cc",
        "native/volume/grant_worker.cc",
        "native/volume/mapped_io.cc",
        "native/volume/thin_io.cc",
        "native/volume/volume.cc",
        "native/volume/volume_requests.cc"
      ],
      "include_dirs": ["<!@(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=8", "NAPI_DISABLE_CPP_EXCEPTIONS"]
    },
    {
      "target_name": "tidemark_keeper",
      "type": "executable",
      "sources": [
        "native/keeper/foreign_wait.cc",
        "native/keeper/keeper.cc",
        "native/keeper/main.cc",
        "native/sys/file_size.cc",
        "native/sys/holders.cc",
        "native/sys/keeper_socket.cc",
        "native/sys/loop_device.cc",
        "native/sys/mount_point.cc"
      ]
    },
    {
      "target_name": "tidemark_file",
      "sources": ["native/binding/file_binding.cc", "native/sys/data_sync.cc", "native/sys/write_many.cc"],
      "defines": ["NAPI_VERSION=8"]
    },
    {
      "target_name": "tidemark_seal",
      "sources": ["native/binding/seal_binding.cc"],
      "defines": ["NAPI_VERSION=8"]
    },
    {
      "target_name": "tidemark_digest",
      "sources": ["native/binding/digest_binding.cc", "native/sys/block_digest.cc"],
      "defines": ["NAPI_VERSION=8"]
    }
  ]
}
