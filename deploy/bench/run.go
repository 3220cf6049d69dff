package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
)

type options struct {
	binary                  string
	rounds, requests, conns int
	strict                  bool
}

// bench is one run: a folder, a provider, an upstream, and what was started.
type bench struct {
	options
	dir      string
	self     string
	op       *claimstest.OP
	upstream string
	started  []*exec.Cmd
	cleanup  []func()
	missed   []string
}

func (b *bench) Helper()                        {}
func (b *bench) Cleanup(f func())               { b.cleanup = append(b.cleanup, f) }
func (b *bench) Fatalf(format string, a ...any) { panic(fmt.Errorf(format, a...)) }

func run(o options) (err error) {
	b := &bench{options: o}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "groupgate-bench-"); err != nil {
		return err
	}
	defer b.end()
	b.op = claimstest.Start(b, claimstest.Options{ClientID: "bench", ClientSecret: "bench", NoRefresh: true, Alg: "ES256"})
	for _, n := range []int{1, 20, 200, 2000} {
		b.op.SetPerson(claimstest.Person{Subject: "person" + strconv.Itoa(n), Claims: map[string]any{
			"preferred_username": "person" + strconv.Itoa(n), "email": "person@example.com", "name": "A Person", "groups": groupNames(n),
		}})
	}
	up := freePort()
	if _, err := b.start(b.self, "upstream", "-listen", up); err != nil {
		return err
	}
	b.upstream = "http://" + up
	if err := waitFor(up); err != nil {
		return err
	}
	for _, step := range []func() error{b.startup, b.hotPath, b.logins, b.manyRules} {
		if err := step(); err != nil {
			return err
		}
	}
	if len(b.missed) > 0 {
		fmt.Printf("\ngoals missed: %s\n", strings.Join(b.missed, "; "))
		if b.strict {
			return errors.New("a goal was missed")
		}
	}
	return nil
}

func groupNames(n int) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = fmt.Sprintf("team-%04d-engineering", i)
	}
	return out
}

func (b *bench) end() {
	for _, cmd := range b.started {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for _, f := range slices.Backward(b.cleanup) {
		f()
	}
	os.RemoveAll(b.dir)
}

func (b *bench) start(name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	logs, err := os.Create(filepath.Join(b.dir, fmt.Sprintf("log-%d", len(b.started))))
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = logs, logs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // however we end
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.started = append(b.started, cmd)
	return cmd, nil
}

func (b *bench) stop(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	b.started = slices.DeleteFunc(b.started, func(c *exec.Cmd) bool { return c == cmd })
}

// gate is one groupgate process.
type gate struct {
	cmd           *exec.Cmd
	public, admin string
	listening     time.Duration
}

func (b *bench) gate(name, issuer, rules, extra string) (*gate, error) {
	g := &gate{public: freePort(), admin: freePort()}
	file := filepath.Join(b.dir, name+".yaml")
	text := fmt.Sprintf(`listen: %s
public_url: http://%s
upstream: %s
store: {sqlite: %s}
sources:
  - name: bench
    oidc: {issuer: %q, client_id: bench, client_secret: bench}
    groups: {claims: [groups]}
rules:
%s
headers: {max_bytes: 100000}
admin: {listen: %q, token: a-token-for-the-benchmark-0123456789}
%s`, strconv.Quote(g.public), g.public, b.upstream, filepath.Join(b.dir, name+".db"), issuer, rules, g.admin, extra)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	begin := time.Now()
	cmd, err := b.start(b.binary, "serve", "--config", file)
	if err != nil {
		return nil, err
	}
	g.cmd = cmd
	if err := waitFor(g.public); err != nil {
		return nil, fmt.Errorf("%w: %s", err, b.log(cmd))
	}
	g.listening = time.Since(begin)
	return g, nil
}

// ready waits until the provider was found.
func (g *gate) ready() error {
	for range 1000 {
		if res, err := http.Get("http://" + g.admin + "/readyz"); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("groupgate is not ready after 10 s")
}

func (b *bench) log(cmd *exec.Cmd) string {
	f, ok := cmd.Stderr.(*os.File)
	if !ok {
		return ""
	}
	raw, _ := os.ReadFile(f.Name())
	if len(raw) > 2000 {
		raw = raw[len(raw)-2000:]
	}
	return string(raw)
}

const anyRule = "  - {source: bench, claim: groups, any: true}\n"

// login signs a person in through the whole flow and answers the cookie.
func (b *bench) login(g *gate, person string) (cookie string, err error) {
	b.op.SetAutoLogin(person)
	browser := claimstest.NewBrowser(nil)
	defer browser.Close()
	page, err := browser.Get("http://" + g.public + "/")
	if err != nil {
		return "", err
	}
	if page.Status != http.StatusOK {
		return "", fmt.Errorf("login of %s ended with %d at %s: %s", person, page.Status, page.URL.Path, b.log(g.cmd))
	}
	for _, c := range browser.Cookies("http://" + g.public + "/") {
		if c.Name == "groupgate" {
			return c.Name + "=" + c.Value, nil
		}
	}
	return "", errors.New("no session cookie")
}

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
	b.goal("binary under 30 MiB", info.Size() < 30<<20)
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
	for _, t := range []target{gateTarget, bareTarget} { // warm up
		if _, err := t.load(b.conns, requests/4); err != nil {
			return nil, err
		}
	}
	var gates, bares []sample
	var cpu, instr []float64
	dials := scrape(gateTarget.metrics, "groupgate_upstream_dials_total")
	for round := range b.rounds {
		order := []target{gateTarget, bareTarget}
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
		gs, bs := both[gateTarget.pid], both[bareTarget.pid]
		gates, bares = append(gates, gs), append(bares, bs)
		cpu = append(cpu, gs.cpu/bs.cpu)
		if gs.instr > 0 && bs.instr > 0 {
			instr = append(instr, gs.instr/bs.instr)
		}
	}
	return &comparison{
		gate: medians(gates), bare: medians(bares), cpuRatio: median(cpu), instrRatio: median(instr),
		dials: scrape(gateTarget.metrics, "groupgate_upstream_dials_total") - dials,
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

func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func waitFor(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var d net.Dialer
	for ctx.Err() == nil {
		if c, err := d.DialContext(ctx, "tcp", address); err == nil {
			return c.Close()
		}
		time.Sleep(200 * time.Microsecond)
	}
	return fmt.Errorf("nobody listens at %s", address)
}

func scrape(address, name string) float64 {
	res, err := http.Get(address)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(raw) {
		if rest, ok := strings.CutPrefix(string(line), name+" "); ok {
			v, _ := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return v
		}
	}
	return 0
}
