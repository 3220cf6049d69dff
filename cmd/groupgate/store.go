package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/groupgate/groupgate/cmd/internal/app"
)

// addStore adds the commands about where the directory is kept.
func addStore(with func(*cobra.Command) *cobra.Command, path *string, out io.Writer) {
	store := with(&cobra.Command{
		Use: "store", Short: "Back the directory up, or move it to another store", Args: cobra.NoArgs,
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

	var file string
	c = &cobra.Command{
		Use: "backup TO.db", Short: "Copy a SQLite directory into a new file, while groupgate runs", Args: cobra.ExactArgs(1),
		Long: "Copy the SQLite directory of the configuration, or of --from FILE.db, into a new file that only its\n" +
			"owner may read. groupgate may run meanwhile. Sessions are left out: in a copy that is put in place\n" +
			"later, those that were ended in between would live again. A PostgreSQL database is backed up with pg_dump.",
		RunE: func(c *cobra.Command, args []string) error {
			return app.BackupStore(c.Context(), *path, file, args[0], out)
		},
	}
	c.Flags().AddFlag(store.Flags().Lookup("config"))
	c.Flags().StringVar(&file, "from", "", "the `FILE.db` to copy, in place of a configuration")
	c.MarkFlagsMutuallyExclusive("config", "from")
	store.AddCommand(c)
}
