package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/groupgate/groupgate/cmd/internal/app"
)

// addStore adds the commands about where the directory is kept.
func addStore(with func(*cobra.Command) *cobra.Command, path *string, out io.Writer) {
	store := with(&cobra.Command{
		Use: "store", Short: "Move the directory to another store", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	})
	var from string
	c := &cobra.Command{
		Use: "copy --from FILE.db", Short: "Copy a SQLite directory into the PostgreSQL database of the configuration", Args: cobra.NoArgs,
		Long: "Copy a SQLite directory into the PostgreSQL database that store.postgres of the configuration names:\n" +
			"people, groups, rules, audit trail, sessions and generated keys, so that nobody has to sign in again.\n" +
			"Stop groupgate first: what it writes while the copy runs is not copied. The database must be empty.",
		RunE: func(c *cobra.Command, _ []string) error { return app.CopyStore(c.Context(), *path, from, out) },
	}
	c.Flags().AddFlag(store.Flags().Lookup("config"))
	c.Flags().StringVar(&from, "from", "", "the `FILE.db` to copy")
	_ = c.MarkFlagRequired("from") // the flag exists
	store.AddCommand(c)
}
