package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/groupgate/groupgate/cmd/internal/migrate"
)

// migrations make the verb's parts, one for each proxy we read.
func migrations(out, errOut io.Writer) *cobra.Command {
	c := &cobra.Command{
		Use: "migrate", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		Short: "Write a configuration from that of another proxy",
		Long: "Write a configuration from that of another proxy.\n" +
			"The configuration goes to the standard output, each key with where it is from. What has no\n" +
			"counterpart, and what is left to do, goes to the standard error output. Secrets are not\n" +
			"printed: the configuration refers to where they are.",
	}
	for _, from := range []struct {
		name, reads string
		translate   func(name string, text []byte) (*migrate.Result, error)
	}{
		{"oauth2-proxy", "its .cfg file, or a file with its environment or its command line", migrate.OAuth2Proxy},
		{"saml-auth-proxy", "a file with its environment or its command line", migrate.SAMLAuthProxy},
	} {
		c.AddCommand(&cobra.Command{
			Use: from.name + " FILE", Short: "From " + from.name + ": " + from.reads, Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				text, err := os.ReadFile(args[0])
				if err != nil {
					return err
				}
				r, err := from.translate(args[0], text)
				if err != nil {
					return err
				}
				for _, line := range r.Lacks {
					fmt.Fprintln(errOut, line)
				}
				_, err = fmt.Fprintf(out, "# From %s of %s.\n%s", filepath.Base(args[0]), from.name, r.Config)
				return err
			},
		})
	}
	return c
}
