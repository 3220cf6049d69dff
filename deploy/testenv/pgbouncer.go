package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Bouncer is a PgBouncer in transaction mode before a PostgreSQL.
type Bouncer struct {
	Port int

	process *process
}

// PgBouncer starts one until the test ends.
func PgBouncer(tb testing.TB, s *PostgresServer) *Bouncer {
	tb.Helper()
	wanted(tb, "pgbouncer")
	dir, err := os.MkdirTemp("", "groupgate-pgbouncer-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	b, err := newBouncer(dir, s)
	if err != nil {
		tb.Fatalf("PgBouncer: %v", err)
	}
	tb.Cleanup(b.process.stop)
	return b
}

func newBouncer(dir string, s *PostgresServer) (*Bouncer, error) {
	bin, err := exec.LookPath("pgbouncer")
	if err != nil {
		bin = "/usr/sbin/pgbouncer" // where people's PATH does not look
	}
	b := &Bouncer{}
	for try := 0; ; try++ {
		ports, err := freePorts(1)
		if err != nil {
			return nil, err
		}
		b.Port = ports[0]
		for name, text := range map[string]string{
			"users.txt": fmt.Sprintf("%q %q\n", pgUser, pgPassword),
			"pgbouncer.ini": strings.NewReplacer("DIR", dir, "SERVER", strconv.Itoa(s.Port), "PORT", strconv.Itoa(b.Port)).Replace(`[databases]
* = host=127.0.0.1 port=SERVER
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = PORT
unix_socket_dir =
auth_type = scram-sha-256
auth_file = DIR/users.txt
pool_mode = transaction
default_pool_size = 10
max_client_conn = 500
log_connections = 0
log_disconnections = 0
`),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				return nil, err
			}
		}
		if os.Geteuid() == 0 { // it refuses to be root, too
			if err := giveAway(dir, "postgres"); err != nil {
				return nil, err
			}
		}
		cmd, err := asPostgres(bin, filepath.Join(dir, "pgbouncer.ini"))
		if err != nil {
			return nil, err
		}
		if b.process, err = startCommand(cmd); err != nil {
			return nil, err
		}
		through := &PostgresServer{Port: b.Port}
		if err = b.process.until(func() error { return through.answers("postgres") }); err == nil {
			return b, nil
		}
		b.process.stop()
		if try == 2 {
			return nil, err
		}
	}
}

// DSN is the address of a database of the server behind, as PgBouncer in
// transaction mode wants it.
func (b *Bouncer) DSN(database string) string {
	return dsn(b.Port, database) + "&default_query_exec_mode=exec"
}
