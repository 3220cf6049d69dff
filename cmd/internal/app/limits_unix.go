//go:build unix

package app

import "syscall"

// openFiles answers how many files the process may have open.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // what is usual where nobody said otherwise
	}
	return uint64(limit.Cur) //nolint:unconvert // signed on some systems
}
