package groups

// Change is what one sync does to one user.
type Change struct {
	Created    []string `json:"created,omitempty"` // groups made, control sso
	Add        []Grant  `json:"add,omitempty"`
	Drop       []Grant  `json:"drop,omitempty"`
	DropManual []string `json:"drop_manual,omitempty"` // manual memberships that end, by group

	Added   []string `json:"added,omitempty"`   // groups the user enters
	Removed []string `json:"removed,omitempty"` // groups the user leaves
	Skipped []Skip   `json:"skipped,omitempty"`
	Held    []string `json:"held,omitempty"` // groups the user would leave, but for the guard
}

// Skip is a grant that could not be given, and why.
type Skip struct {
	Grant
	Reason string `json:"reason"` // one of the Skip... reasons
}

// Reasons of a Skip.
const (
	SkipMissing = "group does not exist"
	SkipName    = "name not allowed"
	SkipManual  = "manually controlled"
)
