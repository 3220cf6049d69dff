package admin

func (s *Server) peoplePages() []consoleRoute { return nil }
