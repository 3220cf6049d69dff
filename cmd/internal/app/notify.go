package app

import (
	"fmt"
	"net"
	"os"
	"time"

	"go.uber.org/zap"
)

// What a service manager is told, sd_notify(3).
const (
	notifyReady     = "READY=1"
	notifyReloading = "RELOADING=1"
	notifyStopping  = "STOPPING=1"
)

// notify tells the service manager where we are, if there is one that asks: it
// names a datagram socket in NOTIFY_SOCKET, a path or an abstract name after
// "@". One that does not listen is no reason to stop.
func (s *server) notify(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	if err := sendState(name, state); err != nil {
		s.log.Warn("the service manager was not told", zap.String("state", state), zap.Error(err))
	}
}

func sendState(name, state string) error {
	if name[0] != '/' && name[0] != '@' {
		return fmt.Errorf("NOTIFY_SOCKET %q: neither a path nor an abstract name", name)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	// Who asks and does not read must not hold up a start or a stop.
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(state))
	return err
}
