#!/bin/bash
# A real Apptainer beside the system's libraries, which are older than it wants: the program from Debian's development
# distribution and its C library are unpacked into a folder of their own, and nothing of the system is changed.
#
#     apptainer.sh FOLDER      afterwards FOLDER/bin/apptainer runs
set -euo pipefail
mkdir -p "$1"
folder=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

. /etc/os-release
mirror=$(apt-get indextargets --format '$(SITE)' "Codename: $VERSION_CODENAME" | head -n 1)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
for suite in sid trixie; do
    echo "deb [signed-by=$keyring] $mirror $suite main"
done > "$work/sources.list"
apt=(-oDir::Etc::sourcelist="$work/sources.list" -oDir::Etc::sourceparts=- -oDir::State::Lists="$work/lists"
    -oDir::Cache="$work/cache" -oAPT::Sandbox::User=root -oAPT::Get::List-Cleanup=0)
apt-get "${apt[@]}" -qq update
cd "$work"
apt-get "${apt[@]}" -qq download apptainer/sid libc6/trixie

dpkg -x apptainer_*.deb "$work/apptainer"
dpkg -x libc6_*.deb "$work/libc"
cp -a "$work/apptainer/." "$folder/"

# Its programs start with that C library, and find the few others that they need beside it.
libraries="$folder/libc"
mkdir -p "$libraries"
find "$work/libc" -path '*x86_64-linux-gnu*' \( -type f -o -type l \) -name '*.so*' -exec cp -a {} "$libraries/" \;
cp -aL /usr/lib/x86_64-linux-gnu/libseccomp.so.2 /usr/lib/x86_64-linux-gnu/libsqlite3.so.0 "$libraries/"
for program in "$folder/usr/bin/apptainer" "$(find "$folder" -path '*apptainer/bin/starter' -type f | head -n 1)"; do
    patchelf --set-interpreter "$libraries/ld-linux-x86-64.so.2" --set-rpath "$libraries" "$program"
done

# Where it looks for its configuration and mounts its sessions, relative to where it lies.
ln -sfn ../etc "$folder/usr/etc"
ln -sfn ../../etc "$folder/usr/lib/etc"
mkdir -p "$folder/usr/var/lib/apptainer/mnt/session" "$folder/usr/lib/var/lib/apptainer/mnt/session"
sed -i 's/^root default capabilities = .*/root default capabilities = no/' "$folder/etc/apptainer/apptainer.conf"
mkdir -p "$folder/bin"
ln -sfn ../usr/bin/apptainer "$folder/bin/apptainer"
"$folder/bin/apptainer" --version
