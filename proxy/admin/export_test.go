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
