package admin

func (s *Server) operatePages() []consoleRoute { return nil }
