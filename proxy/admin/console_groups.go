package admin

func (s *Server) groupPages() []consoleRoute { return nil }
