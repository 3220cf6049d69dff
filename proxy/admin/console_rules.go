package admin

func (s *Server) rulePages() []consoleRoute { return nil }
