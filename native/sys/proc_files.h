// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dirent.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

/** Files of /proc and /sys. What cannot be read is empty. */
namespace tidemark {

inline std::vector<std::string> listFolder(const std::string& folder) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> handle(opendir(folder.c_str()), closedir);
  if (!handle) return names;
  while (const dirent* entry = readdir(handle.get())) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  return names;
}

inline std::string firstLine(const std::string& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

}  // namespace tidemark
