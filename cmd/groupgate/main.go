// Command groupgate is a reverse-proxy sidecar: it ends the single sign-on
// login, maps group claims to groups, keeps memberships, and forwards requests
// with identity and group headers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	_ "time/tzdata" // a rule's condition may name a time zone, and an image made from scratch has none

	"github.com/spf13/cobra"

	"github.com/groupgate/groupgate/cmd/internal/app"
	"github.com/groupgate/groupgate/config"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is main with everything it touches as a parameter. It answers the exit
// status: 0, 1 for a fault, 2 for a plan that the guard would stop.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	cmd := commands(in, out, errOut)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var faults config.Faults
	switch {
	case err == nil:
		return 0
	case errors.Is(err, app.ErrGuard):
		fmt.Fprintln(errOut, "groupgate:", err)
		return 2
	case errors.As(err, &faults):
		fmt.Fprintln(errOut, faults.Error())
	case !errors.Is(err, app.ErrSilent):
		fmt.Fprintln(errOut, "groupgate:", err)
	}
	return 1
}

func commands(in io.Reader, out, errOut io.Writer) *cobra.Command {
	var path string
	root := &cobra.Command{
		Use:           "groupgate",
		Short:         "A reverse-proxy sidecar that keeps group memberships from single sign-on",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(out)
	root.SetErr(errOut)
	root.CompletionOptions.HiddenDefaultCmd = true
	with := func(c *cobra.Command) *cobra.Command {
		file := os.Getenv("GROUPGATE_CONFIG")
		if file == "" {
			file = "groupgate.yaml"
		}
		c.Flags().StringVar(&path, "config", file, "configuration `FILE`")
		root.AddCommand(c)
		return c
	}
	with(&cobra.Command{
		Use: "serve", Short: "Run the proxy", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return app.Serve(c.Context(), path, errOut) },
	})
	addCheck(with, &path, out)
	addExplain(with, &path, in, out)
	addPlan(with, &path, out)
	addImport(with, &path, out)
	addUser(with, &path, in, out, errOut)
	addStore(with, &path, out)
	root.AddCommand(migrations(out, errOut), &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the configuration, for editors", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			schema, err := config.Schema()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "%s\n", schema)
			return err
		},
	}, &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(out, "groupgate", app.Version)
			return err
		},
	})
	return root
}

func addCheck(with func(*cobra.Command) *cobra.Command, path *string, out io.Writer) {
	var online bool
	c := with(&cobra.Command{
		Use: "check", Short: "Validate the configuration: every fault at once", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return app.Check(c.Context(), *path, online, out) },
	})
	c.Flags().BoolVar(&online, "online", false, "also contact sources, store and upstreams, one line each")
}

func addExplain(with func(*cobra.Command) *cobra.Command, path *string, in io.Reader, out io.Writer) {
	x := app.Explaining{In: in}
	c := with(&cobra.Command{
		Use: "explain --source NAME {[--user SUBJECT] CLAIMS.json | --person USERNAME}", Args: cobra.MaximumNArgs(1),
		Short: "Say value by value which rule hit or missed, and what the upstream would get",
		Long: "Say value by value which rule hit or missed, and what the upstream would get.\n" +
			"The claims are read from a file (- is the standard input), or for a directory from the directory\n" +
			"itself: --person says how the entry and its groups are found, without the person's password.",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				x.Claims = args[0]
			}
			return app.Explain(c.Context(), *path, x, out)
		},
	})
	c.Flags().StringVar(&x.Source, "source", "", "`NAME` of the source the claims come from")
	c.Flags().StringVar(&x.Subject, "user", "", "`SUBJECT` of a known person, to compare with the memberships stored")
	c.Flags().StringVar(&x.Person, "person", "", "`USERNAME` to look up in the source's directory, in place of CLAIMS.json")
	c.Flags().BoolVar(&x.JSON, "json", false, "print JSON")
	_ = c.MarkFlagRequired("source") // the flag exists
}

func addPlan(with func(*cobra.Command) *cobra.Command, path *string, out io.Writer) {
	var asJSON bool
	c := with(&cobra.Command{
		Use: "plan", Short: "Say what the rules in the file would change for every known user", Args: cobra.NoArgs,
		Long: "Say what the rules in the file would change for every known user, from last-seen claims.\n" +
			"Nothing is changed. The exit status is 2 if the guard would stop the removals.",
		RunE: func(c *cobra.Command, _ []string) error { return app.Plan(c.Context(), *path, asJSON, out) },
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
}

func addImport(with func(*cobra.Command) *cobra.Command, path *string, out io.Writer) {
	var group string
	c := with(&cobra.Command{
		Use: "import --group GROUP FILE.csv", Short: "Add the people of a CSV file to a manual group, all or nothing", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return app.Import(c.Context(), *path, group, args[0], out)
		},
	})
	c.Flags().StringVar(&group, "group", "", "the manual `GROUP`")
	_ = c.MarkFlagRequired("group") // the flag exists
}
