package groups

// Rule says which value of which group claim of which source means which
// group. Exactly one of Value, DN, Regexp and Any is set.
type Rule struct {
	ID string `yaml:"-" json:"id,omitempty"` // stable; of a file's rule a hash of its content
	// Location is "FILE:LINE" of a rule that a configuration file owns, empty
	// for one that the store owns.
	Location string `yaml:"-" json:"location,omitempty"`
	// Version counts the writes of a rule that the store owns.
	Version int64 `yaml:"-" json:"version,omitempty"`

	Source string `yaml:"source" json:"source,omitempty"` // empty: every source that has the claim
	Claim  string `yaml:"claim" json:"claim"`
	Value  string `yaml:"value" json:"value,omitempty"`   // byte for byte
	DN     string `yaml:"dn" json:"dn,omitempty"`         // a distinguished name, by RFC 4514 structure
	Regexp string `yaml:"regexp" json:"regexp,omitempty"` // RE2, anchored at both ends
	Any    bool   `yaml:"any" json:"any,omitempty"`       // the value is the group's name
	Split  string `yaml:"split" json:"split,omitempty"`   // cut each value at this text first
	When   string `yaml:"when" json:"when,omitempty"`     // CEL over claims and source
	Group  string `yaml:"group" json:"group,omitempty"`   // with Regexp a template: $1, ${name}
}
