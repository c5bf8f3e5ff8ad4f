#!/usr/bin/env bash
# What is in the repository belongs there: nothing at its top but what stands below, no leftovers of tools, no large files.
cd "$(dirname "$0")/../.." || exit 1
git rev-parse --is-inside-work-tree >/dev/null 2>&1 || exit 0 # an archive of the sources: there is nothing to ask
top=" .ci .clang-format .clang-tidy .gitignore CMakeLists.txt CMakePresets.json CONTRIBUTING.md LICENSE README.md SECURITY.md cmake
 codegen dev docs driver examples frontend ir passes python runtime targets tests tools "
most=$((6 << 20)) # the largest is the demo's network
bad=$(
  git ls-files | cut -d/ -f1 | sort -u | while read -r name; do
    [[ $top =~ [[:space:]]"$name"[[:space:]] ]] || echo "$name: nothing of the kind stands at the top (tests/includes/check_tracked.sh)"
  done
  git ls-files | grep -E '\.(whl|o|so|a|pyc|orig|rej)$|\.reproducer/' | sed 's/$/: made by a tool/'
  git ls-files -z | xargs -0 stat -c '%s %n' 2>/dev/null | awk -v most=$most '$1 > most { print $2 ": " $1 " bytes" }'
)
[ -z "$bad" ] && exit 0
echo "$bad" | head -20
exit 1
