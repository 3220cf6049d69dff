package testenv

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Image is one that was built and unpacked.
type Image struct {
	Config string // the OCI image configuration, JSON
	Root   string // what it holds; a run changes nothing of it
	Size   int64  // of all its files
}

// BuildImage builds the last stage of a Dockerfile with Buildah. What the
// stage "build" would have made is put into a folder by "fill" in its stead:
// that stage wants the network, and is not run.
func BuildImage(tb testing.TB, dockerfile, made string, fill func() error, arguments ...string) *Image {
	tb.Helper()
	wanted(tb, "buildah", "skopeo", "umoci")
	if err := fill(); err != nil {
		tb.Fatal(err)
	}
	dir := newFolder(tb, "image")
	nothing := filepath.Join(dir, "context")
	if err := os.Mkdir(nothing, 0o700); err != nil {
		tb.Fatal(err)
	}
	oci := filepath.Join(dir, "oci")
	build := []string{
		"--root", filepath.Join(dir, "store"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs",
		"build", "--isolation", "chroot", "--pull-never", "--build-context", "build=" + made, "--file", dockerfile, "--tag", "oci:" + oci + ":test",
	}
	for _, a := range arguments {
		build = append(build, "--build-arg", a)
	}
	bundle := filepath.Join(dir, "bundle")
	i := &Image{Root: filepath.Join(bundle, "rootfs")}
	for _, step := range []struct {
		name string
		args []string
		into *string
	}{
		{"buildah", append(build, nothing), new(string)},
		{"skopeo", []string{"inspect", "--config", "oci:" + oci + ":test"}, &i.Config},
		{"umoci", []string{"unpack", "--image", oci + ":test", bundle}, new(string)},
	} {
		out, err := run("", nil, step.name, step.args...)
		if err != nil {
			tb.Fatal(err)
		}
		*step.into = out
	}
	err := filepath.Walk(i.Root, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			i.Size += info.Size()
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

// Volumes are files and folders of this machine, by their paths in an image.
// "rw:" before one lets it be written to.
type Volumes map[string]string

// Container is a program of an image that runs.
type Container struct {
	said  words
	stdin io.Closer
	ended chan struct{}
	err   error
}

// Run starts the program of an image as Kubernetes does where the Pod Security
// Standard is "restricted": as user 65532, without capabilities or a way to
// get some, on a root that nobody can write to. It ends with the test.
func (i *Image) Run(tb testing.TB, environment []string, volumes Volumes, dir string, command ...string) *Container {
	tb.Helper()
	script, late := &strings.Builder{}, &strings.Builder{}
	fmt.Fprintf(script, "set -eu\nexec 3<&0\nmount --bind %[1]q %[1]q\n", i.Root)
	for at, from := range volumes {
		from, writable := strings.CutPrefix(from, "rw:")
		info, err := os.Stat(from)
		if err != nil {
			tb.Fatal(err)
		}
		to := filepath.Join(i.Root, at)
		if info.IsDir() { // a runtime makes the mount point as well
			fmt.Fprintf(script, "mkdir -p %q\n", to)
		}
		fmt.Fprintf(late, "mount --bind %q %q\n", from, to)
		if !writable {
			fmt.Fprintf(late, "mount -o remount,ro,bind %q\n", to)
		}
	}
	// The program changes its user, and so would outlive a test that is
	// killed. It ends with the input instead.
	fmt.Fprintf(script, `mount -o remount,ro,bind %[1]q
%[2]ssetpriv --no-new-privs env --ignore-environment "$@" &
program=$!
{ cat <&3; kill -TERM $program; } >/dev/null 2>&1 &
exec 3<&-
wait $program
`, i.Root, late)
	args := append([]string{"--mount", "sh", "-c", script.String(), "sh"}, environment...)
	args = append(args, "/usr/bin/unshare", "--root="+i.Root, "--wd="+dir, "--setgid=65532", "--setuid=65532")
	cmd := exec.Command("unshare", append(args, command...)...)
	c := &Container{ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &c.said, &c.said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	c.stdin = stdin
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		defer close(c.ended)
		c.err = cmd.Wait()
	}()
	tb.Cleanup(func() { _ = c.Stop() }) // how it ended is for who asks
	return c
}

// Log is what the program wrote.
func (c *Container) Log() string { return c.said.String() }

// Ended is closed when the program is not there any more.
func (c *Container) Ended() <-chan struct{} { return c.ended }

// Wait waits for the program to end by itself. The error is of its exit status.
func (c *Container) Wait() error {
	select {
	case <-c.ended:
		return c.err
	case <-time.After(patience):
		return fmt.Errorf("it does not end: %s", c.Log())
	}
}

// Stop asks the program to end (SIGTERM), and waits until it has.
func (c *Container) Stop() error {
	_ = c.stdin.Close() // a second time is no fault
	return c.Wait()
}
