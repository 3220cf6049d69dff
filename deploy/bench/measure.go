package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// startup measures what a new process costs: with the provider down, so that
// nothing but ourselves is waited for.
func (b *bench) startup() error {
	info, err := os.Stat(b.binary)
	if err != nil {
		return err
	}
	nobody := "http://" + freePort()
	var took []float64
	var idle, own float64
	for i := range 5 {
		g, err := b.gate("startup", nobody, anyRule, "")
		if err != nil {
			return err
		}
		took = append(took, float64(g.listening.Microseconds())/1000)
		if i == 4 {
			time.Sleep(2 * time.Second)
			idle, own = memory(g.cmd.Process.Pid, "VmRSS:"), memory(g.cmd.Process.Pid, "RssAnon:")
		}
		b.stop(g.cmd)
	}
	fmt.Printf("start\n  listening with the provider down   %6.1f ms (median of 5)\n  memory after 2 s idle              %6.1f MiB of its own, %.1f MiB resident with the mapped binary\n  binary                             %6.1f MiB\n\n",
		median(took), own, idle, float64(info.Size())/(1<<20))
	b.goal("listening within 20 ms", median(took) <= 20)
	b.goal("idle under 20 MiB of its own memory", own < 20)
	b.goal("binary under 37 MiB", info.Size() < 37<<20)
	return nil
}

func (b *bench) goal(what string, met bool) {
	if !met {
		b.missed = append(b.missed, what)
	}
}

// hotPath is the signed-in request.
func (b *bench) hotPath() error {
	g, err := b.gate("hot", b.op.URL, anyRule, "")
	if err != nil {
		return err
	}
	defer b.stop(g.cmd)
	if err := g.ready(); err != nil {
		return err
	}
	fmt.Printf("signed-in request, %d connections, 1 KiB answers, access log on; medians of %d rounds\n", b.conns, b.rounds)
	fmt.Printf("  %-8s %12s %12s %7s %16s %16s %7s %11s %11s %7s\n", "groups", "groupgate", "bare", "ratio", "kinstr", "kinstr bare", "ratio", "allocs", "bare", "dials")
	var base float64
	for _, n := range []int{1, 20, 200, 2000} {
		cookie, err := b.login(g, "person"+strconv.Itoa(n))
		if err != nil {
			return err
		}
		if len(cookie) >= 200 {
			b.goal("cookie under 200 bytes", false)
		}
		r, err := b.compare(g, cookie, n)
		if err != nil {
			return err
		}
		fmt.Printf("  %-8d %9.1f us %9.1f us %7.2f %16s %16s %7s %11.1f %11.1f %7.0f\n",
			n, r.gate.cpu, r.bare.cpu, r.cpuRatio, r.gate.kinstr(), r.bare.kinstr(), ratio(r.instrRatio), r.gate.allocs, r.bare.allocs, r.dials)
		cost, by := r.gate.cpu, r.cpuRatio
		if r.gate.instr > 0 {
			cost, by = r.gate.instr, r.instrRatio
		}
		switch n {
		case 20:
			base = cost
			b.goal(fmt.Sprintf("20 groups: %.2f of bare, goal 1.10", by), by <= 1.10)
			b.goal("no dialing in a steady state", r.dials == 0)
		case 200:
			b.goal(fmt.Sprintf("200 groups: %.2f of 20 groups, goal 1.3", cost/base), cost/base <= 1.3)
		}
	}
	fmt.Println()
	return nil
}

func ratio(r float64) string {
	if r == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", r)
}

type comparison struct {
	gate, bare           sample
	cpuRatio, instrRatio float64
	dials                float64
}

func (b *bench) compare(g *gate, cookie string, n int) (*comparison, error) {
	file := filepath.Join(b.dir, "groups.txt")
	names := make([]string, n)
	for i, v := range groupNames(n) {
		names[i] = v.(string)
	}
	if err := os.WriteFile(file, []byte(strings.Join(names, ",")), 0o600); err != nil {
		return nil, err
	}
	address := freePort()
	bareCmd, err := b.start(b.self, "bare", "-listen", address, "-upstream", b.upstream, "-groups", file)
	if err != nil {
		return nil, err
	}
	defer b.stop(bareCmd)
	if err := waitFor(address); err != nil {
		return nil, err
	}
	requests := b.requests
	if n >= 2000 {
		requests /= 4
	}
	gateTarget := target{g.cmd.Process.Pid, g.public, cookie, "http://" + g.admin + "/metrics"}
	bareTarget := target{bareCmd.Process.Pid, address, "", "http://" + address + "/_mallocs"}
	return b.takeTurns(gateTarget, bareTarget, requests)
}

// takeTurns loads a groupgate and what it is compared with one after the other,
// round by round.
func (b *bench) takeTurns(gate, other target, requests int) (*comparison, error) {
	for _, t := range []target{gate, other} { // warm up
		if _, err := t.load(b.conns, requests/4); err != nil {
			return nil, err
		}
	}
	var gates, bares []sample
	var cpu, instr []float64
	dials := scrape(gate.metrics, "groupgate_upstream_dials_total")
	for round := range b.rounds {
		order := []target{gate, other}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		both := map[int]sample{}
		for _, t := range order {
			s, err := t.load(b.conns, requests)
			if err != nil {
				return nil, err
			}
			both[t.pid] = s
		}
		gs, bs := both[gate.pid], both[other.pid]
		gates, bares = append(gates, gs), append(bares, bs)
		cpu = append(cpu, gs.cpu/bs.cpu)
		if gs.instr > 0 && bs.instr > 0 {
			instr = append(instr, gs.instr/bs.instr)
		}
	}
	return &comparison{
		gate: medians(gates), bare: medians(bares), cpuRatio: median(cpu), instrRatio: median(instr),
		dials: scrape(gate.metrics, "groupgate_upstream_dials_total") - dials,
	}, nil
}

// logins measures whole logins: every redirect followed, the provider's part
// not counted.
func (b *bench) logins() error {
	fmt.Println("login, CPU time of groupgate a login (provider and browser not counted)")
	for _, n := range []int{20, 2000} {
		g, err := b.gate("login"+strconv.Itoa(n), b.op.URL, anyRule, "")
		if err != nil {
			return err
		}
		person := "person" + strconv.Itoa(n)
		if err := g.ready(); err != nil {
			return err
		}
		first, err := b.cpuOf(g, 1, func() error { _, err := b.login(g, person); return err })
		if err != nil {
			return err
		}
		again, err := b.cpuOf(g, 30, func() error { _, err := b.login(g, person); return err })
		if err != nil {
			return err
		}
		fmt.Printf("  %4d groups: first %7.2f ms, unchanged %7.2f ms (mean of 30)\n", n, first/1000, again/1000)
		b.stop(g.cmd)
	}
	fmt.Println()
	return nil
}

// manyRules shows that a login costs the same with 10 and 10,000 exact rules.
func (b *bench) manyRules() error {
	costs := map[int][]float64{}
	gates := map[int]*gate{}
	for _, n := range []int{10, 10000} {
		var rules strings.Builder
		for i := range n {
			fmt.Fprintf(&rules, "  - {source: bench, claim: groups, value: team-%04d-engineering, group: g%d}\n", i, i)
		}
		g, err := b.gate("rules"+strconv.Itoa(n), b.op.URL, rules.String(), "")
		if err != nil {
			return err
		}
		defer b.stop(g.cmd)
		gates[n] = g
		if err := g.ready(); err != nil {
			return err
		}
		if _, err := b.login(g, "person1"); err != nil {
			return err
		}
	}
	for range b.rounds {
		for _, n := range []int{10, 10000} {
			us, err := b.cpuOf(gates[n], 20, func() error { _, err := b.login(gates[n], "person1"); return err })
			if err != nil {
				return err
			}
			costs[n] = append(costs[n], us)
		}
	}
	few, many := median(costs[10]), median(costs[10000])
	fmt.Printf("login with 10 exact rules %.2f ms, with 10,000 %.2f ms: ratio %.2f\n", few/1000, many/1000, many/few)
	b.goal("10,000 rules as cheap as 10", many/few < 1.15)
	return nil
}

func (b *bench) cpuOf(g *gate, times int, f func() error) (microseconds float64, err error) {
	before := cpuTime(g.cmd.Process.Pid)
	for range times {
		if err := f(); err != nil {
			return 0, err
		}
	}
	return float64((cpuTime(g.cmd.Process.Pid) - before).Microseconds()) / float64(times), nil
}
