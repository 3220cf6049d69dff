package admin

import "time"

// Patterns lists what is served, as "METHOD /pattern".
func (s *Server) Patterns() []string {
	var out []string
	for _, rt := range s.routes {
		out = append(out, rt.method+" "+rt.pattern)
	}
	return out
}

// Wrong counts a wrong token of a client, as [Server.authorize] does.
func (s *Server) Wrong(client string) time.Duration { return s.wrong.add(client) }

// Remembered is how many clients' wrong tokens are counted.
func (s *Server) Remembered() int { return len(s.wrong.seen) }

// MaxClients is the bound of Remembered, but for the one count that is shared.
const MaxClients = maxClients

// MaxExport bounds an export of the audit trail.
const MaxExport = maxExport

// Pages lists the addresses of the console's pages, with their arguments in
// braces.
func (s *Server) Pages() []string {
	var out []string
	for _, p := range s.pages {
		out = append(out, p.pattern)
	}
	return out
}

// Assets are the names of the console's embedded files, with their versions.
func Assets() map[string]string { return assetVersions }

// Sessions is how many sessions of the console there are.
func (s *Server) Sessions() int {
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	return len(s.consoleSessions)
}

// MaxSessions is the bound of Sessions.
const MaxSessions = maxConsoleUsers
