package testenv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Nginx starts nginx until the test ends, with a file that belongs into "http"
// and listens at an address.
func Nginx(tb testing.TB, file, address string) *Front {
	tb.Helper()
	wanted(tb, "nginx")
	dir := newFolder(tb, "nginx")
	conf := filepath.Join(dir, "nginx.conf")
	who := ""
	if os.Geteuid() == 0 { // the folder is nobody else's
		who = "user root root;\n"
	}
	text := strings.NewReplacer("WHO", who, "DIR", dir, "FILE", file).Replace(`WHOdaemon off;
master_process on;
worker_processes 1;
pid DIR/pid;
error_log stderr warn;
events {}
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	include FILE;
}
`)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return newFront(tb, address, "/usr/sbin/nginx", "-p", dir, "-e", "stderr", "-c", conf)
}
