package groups

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/invopop/jsonschema"
)

// SyncConfig is "sync": what one sync may do. See [DefaultSync].
type SyncConfig struct {
	Enabled          bool         `yaml:"enabled"`
	RemoveFromGroups bool         `yaml:"remove_from_groups"`
	CreateNewGroups  bool         `yaml:"create_new_groups"`
	GroupNames       string       `yaml:"group_names"`
	DefaultGroups    []string     `yaml:"default_groups"`
	Guard            *GuardConfig `yaml:"guard"` // nil: DefaultGuard, from 20 users on
}

// DefaultSync is what holds when "sync" is not written.
var DefaultSync = SyncConfig{Enabled: true, RemoveFromGroups: true, CreateNewGroups: true}

// GuardConfig bounds how many users syncs may take groups from.
type GuardConfig struct {
	MaxRemovedUsers Amount        `yaml:"max_removed_users"`
	Window          time.Duration `yaml:"window"`
}

// DefaultGuard holds, from guardFrom users with grants on, when no guard is
// written.
var DefaultGuard = GuardConfig{MaxRemovedUsers: Amount{Percent: 25}, Window: time.Hour}

const guardFrom = 20

// Amount is a number of users, or a share of them.
type Amount struct {
	Percent float64 // of the users who hold grants, when Users is 0
	Users   int
}

// UnmarshalText reads "25%" or "10".
func (a *Amount) UnmarshalText(text []byte) error {
	s := string(text)
	if share, ok := strings.CutSuffix(s, "%"); ok {
		p, err := strconv.ParseFloat(share, 64)
		if err != nil || !(p > 0 && p <= 100) {
			return fmt.Errorf("%q is not a share between 0%% and 100%%", s)
		}
		*a = Amount{Percent: p}
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return fmt.Errorf("%q is neither a number of users (10) nor a share of them (25%%)", s)
	}
	*a = Amount{Users: n}
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (a Amount) MarshalText() ([]byte, error) {
	if a.Users > 0 {
		return []byte(strconv.Itoa(a.Users)), nil
	}
	return []byte(strconv.FormatFloat(a.Percent, 'f', -1, 64) + "%"), nil
}

// Of is the number of users out of holders; at least one.
func (a Amount) Of(holders int) int {
	if a.Users > 0 {
		return a.Users
	}
	return max(1, int(a.Percent*float64(holders)/100))
}

// JSONSchema describes the two spellings.
func (Amount) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
		{Type: "string", Pattern: `^[0-9.]+%$`}, {Type: "integer", Minimum: "1"},
	}}
}

// GroupConfig is one entry of "groups": a group that exists from the start.
type GroupConfig struct {
	Name    string  `yaml:"name"`
	Control Control `yaml:"control"`
}

// JSONSchema lists the values for editors.
func (Control) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Enum: []any{string(SSO), string(Manual)}}
}

// LinkConfig is the part of "identity" beside the claims' names.
type LinkConfig struct {
	Link []string `yaml:"link"`
}
