package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/groupgate/groupgate/cmd/internal/app"
)

// addUser adds the commands about local users.
func addUser(with func(*cobra.Command) *cobra.Command, path *string, in io.Reader, out, errOut io.Writer) {
	var store, source string
	user := with(&cobra.Command{
		Use: "user", Short: "Make and change local users: the way in when single sign-on is down", Args: cobra.NoArgs,
		Long: "Make and change local users: the way in when single sign-on is down.\n" +
			"A running groupgate hears of every change within 2 s.\n" +
			"A password is asked for on a terminal, or read as one line from the standard input.",
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	})
	at := func() app.Users {
		return app.Users{Config: *path, Store: store, Source: source, In: in, Out: out, Err: errOut}
	}
	add := func(c *cobra.Command) *cobra.Command {
		c.Flags().AddFlag(user.Flags().Lookup("config"))
		c.Flags().StringVar(&store, "store", "", "the store's `FILE.db`, in place of a configuration")
		c.Flags().StringVar(&source, "source", "", "`NAME` of the source of local users (default the configuration's, or \"local\")")
		c.MarkFlagsMutuallyExclusive("config", "store")
		user.AddCommand(c)
		return c
	}
	generates := func(c *cobra.Command, generate *bool) *cobra.Command {
		c.Flags().BoolVar(generate, "generate", false, "make a strong password up and print it, once")
		return c
	}

	var generate bool
	var email, display string
	c := generates(add(&cobra.Command{
		Use: "add NAME", Short: "Make a local user", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return at().Add(c.Context(), args[0], email, display, generate)
		},
	}), &generate)
	c.Flags().StringVar(&email, "email", "", "e-mail `ADDRESS`")
	c.Flags().StringVar(&display, "name", "", "display `NAME`")
	generates(add(&cobra.Command{
		Use: "passwd NAME", Short: "Give a local user another password, and end all sessions", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return at().Passwd(c.Context(), args[0], generate) },
	}), &generate)
	for use, disabled := range map[string]bool{"disable": true, "enable": false} {
		short := "Let a local user sign in again"
		if disabled {
			short = "End all sessions of a local user, and allow no new ones"
		}
		add(&cobra.Command{
			Use: use + " NAME", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error { return at().SetDisabled(c.Context(), args[0], disabled) },
		})
	}
	var asJSON bool
	list := add(&cobra.Command{
		Use: "list", Short: "List the local users", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return at().List(c.Context(), asJSON) },
	})
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
}
