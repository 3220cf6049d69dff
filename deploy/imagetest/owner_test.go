package imagetest

import (
	"io/fs"
	"syscall"
)

// owner is the user a file belongs to.
func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }
