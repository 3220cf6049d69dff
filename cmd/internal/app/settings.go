package app

import (
	"slices"

	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/groups"
)

// directorySettings is what a configuration says about the directory.
func directorySettings(c *config.Config) groups.Settings {
	s := groups.Settings{
		Sync: c.Sync, Names: c.Identity.Names, Link: c.Identity.Link, Rules: c.Rules, Groups: c.Groups,
	}
	for _, src := range c.Sources {
		s.Sources = append(s.Sources, groups.SourceSettings{
			Name: src.Name, Groups: src.Groups, Names: src.Identity, Require: src.Require, Local: src.Local,
		})
	}
	for _, t := range c.Targets {
		s.Targets = append(s.Targets, t.Name)
	}
	return s
}

// needed lists every claim that anything reads of a source, rules of the store
// included.
func needed(c *config.Config, d *groups.Directory, source string) []string {
	all := append(c.Needed(source), d.Claims(source)...)
	slices.Sort(all)
	return slices.Compact(all)
}
