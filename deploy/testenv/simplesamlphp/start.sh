#!/usr/bin/env bash
# Runs Debian's SimpleSAMLphp as an identity provider on loopback, in one
# process, until that process is ended.
#
#   start.sh DIR [PORT]
#
# DIR is its own: keys, sessions and what it is told. PHP says on standard error
# where it listens ("Development Server (http://127.0.0.1:PORT) started"); port 0,
# the default, takes a free one. It calls itself http://localhost:PORT/simplesaml/;
# its metadata is at saml2/idp/metadata.php below that, a login that begins here
# at saml2/idp/SSOService.php?spentityid=ID, a logout at
# saml2/idp/SingleLogoutService.php?ReturnTo=ADDRESS.
#
# It reads anew at every request:
#
#   DIR/told.json   {"people": {"alice": {"uid": ["alice"], "groups": [...]}}, "idp": {...}, "sp": {...}}
#                   people sign in with any of these names and the password "any";
#                   idp and sp hold SimpleSAMLphp's own options, of saml20-idp-hosted
#                   and of saml20-sp-remote
#   DIR/sp/*.xml    the metadata of service providers, as they publish it
#
# DIR/cert holds two key pairs, idp and next, for a rollover.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=$(cd "$1" && pwd)
www=$(dirname "$(dpkg-query -L simplesamlphp | grep '/www/_include\.php$')")

mkdir -p "$dir"/{cert,sp,tmp,sessions}
for name in idp next; do
	[ -e "$dir/cert/$name.key" ] || openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=$name.example.com" \
		-keyout "$dir/cert/$name.key" -out "$dir/cert/$name.crt" 2>/dev/null
done
[ -e "$dir/salt" ] || openssl rand -hex 24 >"$dir/salt"
[ -e "$dir/told.json" ] || echo '{}' >"$dir/told.json"

export GROUPGATE_SAML_DIR=$dir GROUPGATE_SAML_WWW=$www SIMPLESAMLPHP_CONFIG_DIR=$here/config
exec php -d date.timezone=UTC -d session.save_path="$dir/sessions" -d sys_temp_dir="$dir/tmp" \
	-S "127.0.0.1:${2:-0}" "$here/router.php"
