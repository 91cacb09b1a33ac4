#!/usr/bin/env bash
# Everything that can be said of the source without running the product. Each step names itself, and the first that fails
# ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
tool() { $GO tool -modfile=buildscripts/tools/go.mod "$@"; }
step() { echo "check: $*"; }

step format
mapfile -t gofiles < <(git ls-files "*.go")
unformatted=$(gofmt -l "${gofiles[@]}")
[[ -z $unformatted ]] || { echo "these files want gofmt -w:"; echo "$unformatted"; exit 1; }

step modules
$GO mod verify >/dev/null
$GO mod tidy -diff

step vet
$GO vet ./...

step build for the other platforms
for target in windows/amd64 linux/arm64; do
  CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} $GO build -o /dev/null ./cmd/plantagent
  CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} $GO build -o /dev/null ./cmd/synchub
done

step static analysis
tool staticcheck ./...

step import rule
$GO test -count=1 ./buildscripts/layers

step contract: lint, unbroken, generated code fresh
tool buf lint proto
tool buf breaking proto --against proto/contract.txtpb
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
tool buf generate proto --template proto/buf.gen.yaml -o "$fresh"
for f in "$fresh"/linekeeper/v1/*.go; do
  cmp -s "$f" "proto/linekeeper/v1/$(basename "$f")" || { echo "$(basename "$f") is stale: run make generate"; exit 1; }
done

step shell scripts
bash -n buildscripts/*.sh .ci/run

# A library's own choice of its companion must not be overruled: modernc.org/sqlite works only with the libc it names.
want=$($GO list -m -f '{{.Dir}}' modernc.org/sqlite | xargs -I{} awk '/modernc.org\/libc /{print $NF=="indirect"?$(NF-2):$2; exit}' {}/go.mod)
have=$($GO list -m -f '{{.Version}}' modernc.org/libc)
[[ $want == "$have" ]] || { echo "modernc.org/libc is $have, modernc.org/sqlite wants $want"; exit 1; }
echo "check: ok"
