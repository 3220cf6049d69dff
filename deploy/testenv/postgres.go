package testenv

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	pgUser     = "groupgate"
	pgPassword = "a-database-password-for-tests-only"
)

// PostgresServer is a PostgreSQL cluster that runs on a loopback port. Its
// methods end the test when they fail.
type PostgresServer struct {
	Port int

	dir     string
	bin     string // where initdb and postgres are
	process *process
	next    atomic.Int64
}

// theCluster is the shared PostgreSQL of this test binary.
var theCluster struct {
	once   sync.Once
	server *PostgresServer
	err    error
}

// Postgres is the one PostgreSQL of a test binary, which has [Main] in its
// TestMain: a test makes databases of its own in it, and leaves it running.
func Postgres(tb testing.TB) *PostgresServer {
	tb.Helper()
	wanted(tb, "postgresql")
	theCluster.once.Do(func() {
		theCluster.server, theCluster.err = newPostgres()
		if theCluster.err != nil {
			return
		}
		s := theCluster.server
		if !atMainsEnd(s.remove) {
			s.remove()
			theCluster.err = errors.New("nobody would stop it: TestMain has to run testenv.Main")
		}
	})
	if theCluster.err != nil {
		tb.Fatalf("PostgreSQL: %v", theCluster.err)
	}
	return theCluster.server
}

// OwnPostgres is a PostgreSQL that ends with the test, for one that stops or
// kills it.
func OwnPostgres(tb testing.TB) *PostgresServer {
	tb.Helper()
	wanted(tb, "postgresql")
	s, err := newPostgres()
	if err != nil {
		tb.Fatalf("PostgreSQL: %v", err)
	}
	tb.Cleanup(s.remove)
	return s
}

func newPostgres() (*PostgresServer, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("no initdb below /usr/lib/postgresql: %v", err)
	}
	dir, err := os.MkdirTemp("", "groupgate-postgres-")
	if err != nil {
		return nil, err
	}
	s := &PostgresServer{dir: dir, bin: filepath.Dir(found[len(found)-1])}
	if err = s.prepare(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	// Somebody else may take the port between us and the server.
	for try := 0; ; try++ {
		ports, err := freePorts(1)
		if err != nil {
			return nil, err
		}
		s.Port = ports[0]
		if err = s.launch(); err == nil {
			return s, nil
		}
		if try == 2 {
			s.remove()
			return nil, err
		}
	}
}

// prepare makes the cluster's files. PostgreSQL refuses to be root.
func (s *PostgresServer) prepare() error {
	if err := os.WriteFile(filepath.Join(s.dir, "password"), []byte(pgPassword), 0o600); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := giveAway(s.dir, "postgres"); err != nil {
			return err
		}
	}
	cmd, err := asPostgres(s.bin+"/initdb", "-D", s.data(), "-A", "scram-sha-256", "-U", pgUser, "--pwfile="+filepath.Join(s.dir, "password"),
		"-N", "-E", "UTF8", "--locale=C.UTF-8")
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

func (s *PostgresServer) data() string { return filepath.Join(s.dir, "data") }

// asPostgres is a command of the user that the package made, or of ours.
func asPostgres(name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		return cmd, nil
	}
	who, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(who.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return cmd, nil
}

func (s *PostgresServer) launch() error {
	cmd, err := asPostgres(s.bin+"/postgres", "-D", s.data(), "-p", strconv.Itoa(s.Port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "max_connections=300", "-c", "fsync=off", "-c", "full_page_writes=off",
		"-c", "shared_buffers=64MB", "-c", "autovacuum=off", "-c", "log_min_messages=error", "-c", "log_min_error_statement=panic")
	if err != nil {
		return err
	}
	if s.process, err = startCommand(cmd); err != nil {
		return err
	}
	err = s.process.until(func() error { return s.answers("postgres") })
	if err != nil {
		s.process.kill()
	}
	return err
}

// answers asks whether the server lets somebody in.
func (s *PostgresServer) answers(database string) error {
	_, err := s.psql(database, "select 1")
	return err
}

func (s *PostgresServer) psql(database, text string) (string, error) {
	return run(text, []string{"PGPASSWORD=" + pgPassword, "PGCONNECT_TIMEOUT=5"}, "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
		"-h", "127.0.0.1", "-p", strconv.Itoa(s.Port), "-U", pgUser, database)
}

// Do runs statements in a database, and answers what came of them.
func (s *PostgresServer) Do(tb testing.TB, database, text string) string {
	tb.Helper()
	out, err := s.psql(database, text)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// NewDatabase makes a database: an empty one, or a copy of a template that
// nobody uses at the moment.
func (s *PostgresServer) NewDatabase(tb testing.TB, template string) (name string) {
	tb.Helper()
	if template == "" {
		template = "template0"
	}
	name = fmt.Sprintf("test%d", s.next.Add(1))
	s.Do(tb, "postgres", "create database "+name+" template "+template)
	return name
}

// DSN is the address of a database, as its owner.
func (s *PostgresServer) DSN(database string) string { return dsn(s.Port, database) }

func dsn(port int, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(pgUser, pgPassword), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Password is the one in the addresses.
func (s *PostgresServer) Password() string { return pgPassword }

// PID is the server's first process.
func (s *PostgresServer) PID() int { return s.process.cmd.Process.Pid }

// Stop ends the server as an administrator does who does not wait for
// anybody. It keeps its content for Start.
func (s *PostgresServer) Stop() {
	_ = s.process.cmd.Process.Signal(syscall.SIGINT) // a fast shutdown; it may have ended
	<-s.process.ended
}

// Kill ends the server without a chance to write anything down.
func (s *PostgresServer) Kill() { s.process.kill() }

// Start starts a server again that was stopped or killed, at the same port.
func (s *PostgresServer) Start(tb testing.TB) {
	tb.Helper()
	// The processes of one that was killed may take a moment to notice.
	var err error
	for range 20 {
		if err = s.launch(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	tb.Fatalf("PostgreSQL, again: %v", err)
}

func (s *PostgresServer) remove() {
	if s.process != nil {
		s.process.kill()
	}
	os.RemoveAll(s.dir)
}
