package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/groupgate/groupgate/deploy/testenv"
)

// stores holds a groupgate on PostgreSQL to one on SQLite: the signed-in
// request, which asks neither, and logins.
func (b *bench) stores() error {
	if os.Getenv("GROUPGATE_E2E") != "1" {
		fmt.Println("\nPostgreSQL: left out (with GROUPGATE_E2E=1, where make test installed it)")
		return nil
	}
	pg := testenv.OwnPostgres(b)
	lite, err := b.gate("stores", b.op.URL, anyRule, "")
	if err != nil {
		return err
	}
	defer b.stop(lite.cmd)
	big, err := b.gateOn(fmt.Sprintf("postgres: %q", pg.DSN(pg.NewDatabase(b, ""))), "postgres", b.op.URL, anyRule, "")
	if err != nil {
		return err
	}
	defer b.stop(big.cmd)
	fmt.Println("\nPostgreSQL on this machine, beside SQLite: CPU time of groupgate")
	for _, n := range []int{20, 2000} {
		person := "person" + strconv.Itoa(n)
		type figures struct{ first, again float64 }
		var all []figures
		var cookies []string
		for _, g := range []*gate{big, lite} {
			if err := g.ready(); err != nil {
				return err
			}
			var f figures
			if f.first, err = b.cpuOf(g, 1, func() error { _, err := b.login(g, person); return err }); err != nil {
				return err
			}
			var cookie string
			if f.again, err = b.cpuOf(g, 30, func() error { var err error; cookie, err = b.login(g, person); return err }); err != nil {
				return err
			}
			all, cookies = append(all, f), append(cookies, cookie)
		}
		fmt.Printf("  login, %4d groups: first %7.2f ms, SQLite %7.2f ms; unchanged %6.2f ms, SQLite %6.2f ms\n",
			n, all[0].first/1000, all[1].first/1000, all[0].again/1000, all[1].again/1000)
		if n != 20 {
			continue
		}
		r, err := b.takeTurns(target{big.cmd.Process.Pid, big.public, cookies[0], "http://" + big.admin + "/metrics"},
			target{lite.cmd.Process.Pid, lite.public, cookies[1], "http://" + lite.admin + "/metrics"}, b.requests)
		if err != nil {
			return err
		}
		cost := r.cpuRatio
		if r.instrRatio > 0 {
			cost = r.instrRatio
		}
		fmt.Printf("  signed-in request, %d groups: %.1f us, SQLite %.1f us, ratio %.2f\n", n, r.gate.cpu, r.bare.cpu, cost)
		b.goal(fmt.Sprintf("signed-in request with PostgreSQL: %.2f of that with SQLite, goal 1.05", cost), cost <= 1.05)
	}
	return nil
}
