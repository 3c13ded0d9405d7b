#!/bin/sh
# SPDX-License-Identifier: MIT
# What `npm run test:arm64` needs on an x86_64 Debian machine: the cross compiler and a machine to run its output.
set -eu
missing=
for tool in qemu-system-aarch64:qemu-system-arm aarch64-linux-gnu-g++:g++-aarch64-linux-gnu xz:xz-utils make:make; do
  command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool#*:}"
done
[ -n "$missing" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "test:arm64 needs$missing: install them as root, or run this script as root" >&2; exit 1; }
apt-get -qq update
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
