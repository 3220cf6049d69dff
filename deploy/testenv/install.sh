#!/usr/bin/env bash
# Installs what the tests need beside Go: Chromium, Node, SimpleSAMLphp with
# PHP, OpenLDAP, Samba's Active Directory, nginx, Caddy, HAProxy, PostgreSQL,
# PgBouncer, Buildah and promtool from Debian, the OpenID provider, the SCIM service
# provider, the browser driver and the accessibility checks from npm (pinned in package.json).
# It may run any number of times; when everything is there it takes a moment.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

missing=()
need() { command -v "$1" >/dev/null || missing+=("${@:2}"); }
need chromium-headless-shell chromium-headless-shell
need node nodejs
need npm npm
need gcc gcc libc6-dev # for the race detector
need curl curl         # these are what deploy/README.md has people type
need jq jq
need openssl openssl
need php php-cli
# SimpleSAMLphp has no command of its own, nor have the parts of PHP it wants.
# Samba is many packages: a domain is made by one that nothing depends on.
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
for package in simplesamlphp php-xml php-mbstring php-curl \
	slapd ldap-utils nginx caddy haproxy systemd postgresql pgbouncer \
	buildah skopeo umoci \
	samba samba-ad-dc samba-ad-provision samba-dsdb-modules samba-vfs-modules winbind ldb-tools; do
	installed $package || missing+=("$package")
done
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
# Pages without a font have no text to look at.
if [ -z "$(find /usr/share/fonts -name '*.ttf' -print -quit 2>/dev/null)" ]; then missing+=(fonts-liberation); fi

if [ ${#missing[@]} -gt 0 ]; then
	echo "installing ${missing[*]}"
	if [ "$(id -u)" -ne 0 ]; then
		echo "not root: install them by hand: apt-get install ${missing[*]}" >&2
		exit 1
	fi
	# No package may start a service. An existing policy is left alone.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod +x $policy
		trap 'rm -f $policy' EXIT
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get -q -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 update >/dev/null
	apt-get -q -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 install --no-install-recommends "${missing[@]}" >/dev/null
fi

cd "$here"
# What is installed is compared with what is wanted, not with a time stamp.
have() { node -p "require('./node_modules/$1/package.json').version" 2>/dev/null || true; }
want() { node -p "require('./package.json').dependencies['$1']"; }
for package in oidc-provider playwright-core @axe-core/playwright scimmy scimmy-routers express; do
	if [ "$(have $package)" != "$(want $package)" ]; then
		echo "installing the npm packages"
		npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
		break
	fi
done
# The conformance tool for HTTP/2. Its last release; it has no module file, so
# what it is built from beside is the newest there is.
h2spec=github.com/summerwind/h2spec h2spec_version=v2.2.1+incompatible
if ! go version -m bin/h2spec 2>/dev/null | grep -qF "$h2spec	$h2spec_version"; then
	echo "installing h2spec"
	GOBIN="$here/bin" CGO_ENABLED=0 go install $h2spec/cmd/h2spec@$h2spec_version
fi
# The ACME authority of Let's Encrypt's for tests, and its name server.
pebble=github.com/letsencrypt/pebble/v2 pebble_version=v2.10.1
if ! go version -m bin/pebble 2>/dev/null | grep -qF "$pebble	$pebble_version" || [ ! -x bin/pebble-challtestsrv ]; then
	echo "installing pebble"
	GOBIN="$here/bin" CGO_ENABLED=0 go install $pebble/cmd/pebble@$pebble_version $pebble/cmd/pebble-challtestsrv@$pebble_version
fi
# What reads rules of Prometheus. Its package brings a server and, with what it
# depends on, 330 MB; the one program out of it has 48.
if [ ! -x bin/promtool ]; then
	echo "installing promtool"
	package=$(mktemp -d)
	(cd "$package" && apt-get -q -o Acquire::Retries=3 download prometheus >/dev/null)
	mkdir -p bin
	dpkg-deb --fsys-tarfile "$package"/prometheus_*.deb | tar -xO ./usr/bin/promtool >bin/promtool.new
	chmod +x bin/promtool.new
	mv bin/promtool.new bin/promtool
	rm -r "$package"
fi
# What renders the Helm chart and the Kustomize folders: a module of its own.
# Go knows by itself whether it is up to date.
(cd ../kubetest/kuberender && GOBIN="$here/bin" CGO_ENABLED=0 go install .)
version() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo '?'; }
echo "chromium $(version chromium-headless-shell), node $(node --version), oidc-provider $(have oidc-provider), playwright-core $(have playwright-core), axe $(have @axe-core/playwright), simplesamlphp $(version simplesamlphp), slapd $(version slapd), samba $(version samba), nginx $(version nginx), caddy $(version caddy), haproxy $(version haproxy), postgresql $(version postgresql), pgbouncer $(version pgbouncer)"
