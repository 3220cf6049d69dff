// Package rest has the one type that Helm's engine names.
package rest

// Config would say where a cluster is.
type Config struct{}
