#!/bin/sh
# Makes what the image holds: build.sh VERSION FOLDER. deploy/Dockerfile runs
# it in its first stage, the tests run it as it is. Not one file more than
# these comes into the image:
#
#   FOLDER/rootfs/usr/bin/groupgate
#   FOLDER/rootfs/etc/ssl/certs/ca-certificates.crt
#   FOLDER/rootfs/usr/share/sbom/groupgate.cdx.json
#   FOLDER/data                                       empty; the store's
#
# The authorities are a file and not a part of the program, so that they are as
# new as the image and a company can mount its own in their place. Time zones
# are in the program.
set -eu
version=$1 out=$2
cd "$(dirname "$0")/../.."
root=$out/rootfs
mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/usr/share/sbom" "$out/data"
CGO_ENABLED=0 GOOS=${TARGETOS:-linux} GOARCH=${TARGETARCH:-} go build -trimpath -buildvcs=false \
	-ldflags "-s -w -X github.com/groupgate/groupgate/cmd/internal/app.Version=$version" \
	-o "$root/usr/bin/groupgate" ./cmd/groupgate
go run -buildvcs=false ./deploy/sbom -version "$version" "$root/usr/bin/groupgate" >"$root/usr/share/sbom/groupgate.cdx.json"
cp "${CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/certs/ca-certificates.crt"
find "$root" -type d -exec chmod 755 {} +
find "$root" -type f -exec chmod 644 {} +
chmod 755 "$root/usr/bin/groupgate"
