package app

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/term"
)

// maxLine is more than any password has.
const maxLine = 4 << 10

// readPassword asks for a password twice where somebody can type it, without
// showing it; else it reads one line.
func readPassword(in io.Reader, out io.Writer, user string) (string, error) {
	if f, file := in.(*os.File); file && term.IsTerminal(int(f.Fd())) {
		return typedTwice(int(f.Fd()), out, user)
	}
	line, err := bufio.NewReader(io.LimitReader(in, maxLine)).ReadString('\n')
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return "", fmt.Errorf("read the password: %w", err)
	case line == "":
		return "", errors.New("no password: the standard input is empty; --generate makes one up")
	case len(line) == maxLine:
		return "", errors.New("the first line of the standard input is too long for a password")
	}
	return trimLine(line), nil
}

// trimLine takes one line ending away, and nothing else: blanks may be part of
// a password.
func trimLine(line string) string {
	for _, end := range []string{"\r\n", "\n"} {
		if n := len(line) - len(end); n >= 0 && line[n:] == end {
			return line[:n]
		}
	}
	return line
}

func typedTwice(fd int, out io.Writer, user string) (string, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("the terminal: %w", err)
	}
	// Whoever breaks off wants to see again what they type.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, os.Interrupt)
	defer signal.Stop(broken)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-broken:
			_ = term.Restore(fd, before)
			fmt.Fprintln(out)
			os.Exit(130)
		case <-done:
		}
	}()
	var typed [2]string
	for i, prompt := range []string{"New password of " + user + ": ", "Once more: "} {
		fmt.Fprint(out, prompt)
		raw, err := term.ReadPassword(fd)
		fmt.Fprintln(out)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		typed[i] = string(raw)
	}
	if typed[0] != typed[1] {
		return "", errors.New("the two passwords differ; nothing was changed")
	}
	return typed[0], nil
}
