#!/bin/bash
# Runs every fuzz target of the module for a while: buildscripts/fuzz.sh 30s [pattern]. A crasher is kept by go test under
# testdata/fuzz of its package: check it in with a named test, and mend what it found.
set -u
cd "$(dirname "$0")/.."
time=${1:-30s} only=${2:-.}
# Spoiled folders are made thousands of times: no disk is needed for that.
if [ -w /dev/shm ]; then
  export GOTMPDIR=${GOTMPDIR:-${TMPDIR:-/tmp}} TMPDIR=/dev/shm
fi
targets=0 failed=0
while IFS=: read -r file line; do
  name=${line#func } name=${name%%(*} dir=./$(dirname "$file")
  [[ "$dir $name" =~ $only ]] || continue
  targets=$((targets + 1))
  log=$(mktemp)
  if go test "$dir" -run '^$' -fuzz "^$name\$" -fuzztime "$time" >"$log" 2>&1; then
    runs=$(grep -o 'execs: [0-9]*' "$log" | tail -1)
    echo "fuzz $dir $name ok (${runs:-no figures})"
  else
    failed=$((failed + 1))
    echo "fuzz $dir $name FAILED"
    tail -40 "$log"
  fi
  rm -f "$log"
done < <(git ls-files -co --exclude-standard '*_test.go' | sort | xargs grep -o '^func Fuzz[A-Za-z0-9]*(' /dev/null)
echo "fuzz: targets=$targets failed=$failed"
[ "$targets" -gt 0 ] && [ "$failed" -eq 0 ]
