#!/bin/bash
# Builds libdwarf.wasm from Debian's source package of libdwarf and our shim/.
#
#   build.sh OUTPUT-FOLDER SOURCE-CACHE
#
# OUTPUT-FOLDER gets libdwarf.wasm, libdwarf's licence, a SOURCE.txt that says what it was built from, and the
# files needed to build it again (LGPL-2.1, section 6). Two builds of the same source give the same bytes.
# SOURCE-CACHE keeps the source archive, so that a second build needs no network.
set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022

here=$(cd "$(dirname "$0")" && pwd)
output=$(mkdir -p "$1" && cd "$1" && pwd)
cache=$(mkdir -p "$2" && cd "$2" && pwd)
# The release whose libdwarf we use: 0.11 has years of fixes for damaged input that older ones lack.
release=trixie
package=dwarfutils

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Copies a file so that it is at its place whole or not at all, whoever else does so.
place() {
  local fresh
  fresh=$(mktemp "$(dirname "$2")/.making-XXXXXX")
  install -m "${3:-644}" "$1" "$fresh"
  mv "$fresh" "$2"
}

# Addresses of the archives that the machine's apt is configured for. apt knows them once it has their lists; where
# it has none, it gets them into a folder of ours.
archive_addresses() {
  local query=(indextargets --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages') found
  found=$(apt-get "${query[@]}")
  if [ -z "$found" ]; then
    local lists=(-qq -o "Dir::State::Lists=$work/machine-lists" -o APT::Sandbox::User=root)
    mkdir -p "$work/machine-lists/partial"
    apt-get "${lists[@]}" update >&2
    found=$(apt-get "${lists[@]}" "${query[@]}")
  fi
  awk '$2 == "main" && !seen[$1]++ { print $1 }' <<<"$found"
}

# apt with lists of our own: the machine's sources stay as they are. Where the archive is comes from them.
fetch() {
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg signed='' uri
  [ -e $keyring ] && signed="[signed-by=$keyring]"
  local options=(-qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=-
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o Acquire::Languages=none
    -o APT::Sandbox::User=root -o Acquire::Retries=3)
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/download"
  while read -r uri; do
    echo "deb-src $signed $uri $release main" >"$work/sources.list"
    # The index is signed and holds the archive's SHA-256, which apt verifies.
    if apt-get "${options[@]}" update &&
      (cd "$work/download" && apt-get "${options[@]}" source --download-only --tar-only $package) >/dev/null; then
      # Copied beside its place first: what is cut short there is not taken for the archive.
      local archive=("$work"/download/*.orig.tar.*)
      place "${archive[0]}" "$cache/${archive[0]##*/}"
      return
    fi
  done < <(archive_addresses)
  echo "none of apt's configured archives has the $package source of $release" >&2
  exit 1
}

shopt -s nullglob
archives=("$cache"/${package}_*.orig.tar.*)
[ ${#archives[@]} -eq 1 ] || { rm -f "${archives[@]}"; fetch; archives=("$cache"/${package}_*.orig.tar.*); }
archive=${archives[0]}
version=${archive##*/${package}_}
version=${version%.orig.tar.*}
tar -xf "$archive" -C "$work" --strip-components=1 --one-top-level=libdwarf
source=$work/libdwarf/src/lib/libdwarf

# The linker drops what shim/ does not reach: libdwarf's own file access, line tables, frames and the like.
flags=(--target=wasm32-wasi -O2 -g0 -std=c99 -w -DLIBDWARF_BUILD=1 "-DLIBDWARF_VERSION=\"$version\""
  -ffunction-sections -fdata-sections "-ffile-prefix-map=$work=." "-ffile-prefix-map=$here=." "-I$here" "-I$source")
mkdir "$work/objects"
printf '%s\0' "$source"/*.c | xargs -0 -P "$(nproc)" -I{} \
  sh -c 'clang-14 "$@" -c "$0" -o '"$work/objects"'/$(basename "$0" .c).o' {} "${flags[@]}"
for file in "$here"/shim/*.c; do
  clang-14 "${flags[@]}" -O2 -Wall -Wextra -Werror -Wno-unused-parameter -c "$file" -o "$work/objects/shim-$(basename "$file" .c).o"
done

# wasm-ld by itself: the compiler driver would run whatever wasm-opt the machine has. The stack lies below the
# data, so that overflowing it traps. 1 GiB is the most the module can ever hold.
wasm-ld-14 --no-entry --gc-sections --strip-all -O2 --stack-first -z stack-size=1048576 \
  --max-memory=1073741824 -L/usr/lib/wasm32-wasi "$work"/objects/*.o -lc \
  "$(clang-14 --target=wasm32-wasi -print-libgcc-file-name)" -o "$work/libdwarf.wasm"

cat >"$work/SOURCE.txt" <<TEXT
libdwarf.wasm holds libdwarf $version, copyright by Silicon Graphics, David Anderson and others, under the GNU
Lesser General Public License, version 2.1 (LGPL-2.1.txt, COPYING.libdwarf), unchanged, linked with shim/ and
with wasi-libc (MIT) and LLVM's compiler-rt (Apache-2.0 with LLVM exceptions).

Source: ${archive##*/} of the Debian source package $package
SHA-256: $(sha256sum "$archive" | cut -d' ' -f1)

To build it again, or with a changed libdwarf: build.sh OUTPUT-FOLDER SOURCE-CACHE; an archive that already lies
in SOURCE-CACHE is used as it is.
TEXT
cp "$source/LGPL.txt" "$work/LGPL-2.1.txt"
cp "$source/LIBDWARFCOPYRIGHT" "$work/COPYING.libdwarf"
cd "$work"
for file in SOURCE.txt LGPL-2.1.txt COPYING.libdwarf "$here/config.h"; do
  place "$file" "$output/${file##*/}"
done
mkdir -p "$output/shim"
for file in "$here"/shim/*; do
  place "$file" "$output/shim/${file##*/}"
done
place "$here/build.sh" "$output/build.sh" 755
# Last: make takes it for all of them.
place libdwarf.wasm "$output/libdwarf.wasm"
