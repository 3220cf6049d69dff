package groups

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// conditionCost bounds one evaluation, in CEL's own units.
const conditionCost = 1_000_000

// condition is a compiled "when". It may only name claims in a way that can
// be read off the expression: what a condition reads decides whether its
// outcome is known.
type condition struct {
	program cel.Program
	reads   []string // claims that must be there to evaluate
	tests   []string // claims whose presence is asked for: they may be absent
}

// conditionEnv is made on first use: most configurations have no condition,
// and it costs milliseconds of start-up time.
var conditionEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("claims", cel.MapType(cel.StringType, cel.ListType(cel.StringType))),
		cel.Variable("source", cel.StringType),
	)
})

func compileCondition(expr string) (*condition, error) {
	if len(expr) > maxExpression {
		return nil, fmt.Errorf("longer than %d bytes", maxExpression)
	}
	env, err := conditionEnv()
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(expr)
	if issues.Err() != nil {
		return nil, celError(issues)
	}
	if ast.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("a condition is true or false; this one is %s", ast.OutputType())
	}
	c := &condition{}
	if err := c.findClaims(ast.NativeRep()); err != nil {
		return nil, err
	}
	c.program, err = env.Program(ast, cel.CostLimit(conditionCost), cel.EvalOptions(cel.OptOptimize))
	return c, err
}

// celError puts the first fault on one line; CEL draws a caret over several.
func celError(issues *cel.Issues) error {
	errs := issues.Errors()
	if len(errs) == 0 {
		return issues.Err()
	}
	at := errs[0].Location
	return fmt.Errorf("column %d: %s", at.Column()+1, strings.ReplaceAll(errs[0].Message, "\n", " "))
}

var errOpenClaims = errors.New(`claims may only be read by a fixed name: claims.department, claims["department"], has(claims.department), "department" in claims`)

func (c *condition) findClaims(a *celast.AST) error {
	idents := celast.MatchDescendants(celast.NavigateAST(a), func(e celast.NavigableExpr) bool {
		return e.Kind() == celast.IdentKind && e.AsIdent() == "claims"
	})
	for _, id := range idents {
		name, test, ok := claimRead(id)
		if !ok {
			return errOpenClaims
		}
		list := &c.reads
		if test {
			list = &c.tests
		}
		if !slices.Contains(*list, name) {
			*list = append(*list, name)
		}
	}
	// Who asks first whether a claim is there may read it after that.
	c.reads = slices.DeleteFunc(c.reads, func(name string) bool { return slices.Contains(c.tests, name) })
	return nil
}

// claimRead tells which claim the expression around the word "claims" reads,
// and whether it only tests for it.
func claimRead(id celast.NavigableExpr) (name string, test, ok bool) {
	parent, there := id.Parent()
	if !there {
		return "", false, false
	}
	switch parent.Kind() {
	case celast.SelectKind:
		s := parent.AsSelect()
		return s.FieldName(), s.IsTestOnly(), s.Operand().ID() == id.ID()
	case celast.CallKind:
		call := parent.AsCall()
		args := call.Args()
		if len(args) != 2 {
			return "", false, false
		}
		switch {
		case call.FunctionName() == operators.Index && args[0].ID() == id.ID():
			name, ok = literal(args[1])
			return name, false, ok
		case call.FunctionName() == operators.In && args[1].ID() == id.ID():
			name, ok = literal(args[0])
			return name, true, ok
		}
	}
	return "", false, false
}

func literal(e celast.Expr) (string, bool) {
	if e.Kind() != celast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

// outcome of a condition: it holds, it does not, or it cannot be known.
type outcome uint8

const (
	fails outcome = iota
	holds
	undecided
)

// eval answers why, in words, unless the condition holds. Claims that the
// condition only asks for do not count among those that were looked at: it
// says itself what their absence means.
func (c *condition) eval(w *Wanted) (outcome, string) {
	values := make(map[string][]string, len(c.reads)+len(c.tests))
	for _, name := range c.reads {
		s := w.look(name)
		if !s.complete {
			return undecided, fmt.Sprintf("the condition reads %s: %s", name, s.why)
		}
		values[name] = s.values
	}
	for _, name := range c.tests {
		switch s := w.peek(name); {
		case s.unknown:
			return undecided, fmt.Sprintf("the condition asks for %s: %s", name, s.why)
		case !s.absent:
			values[name] = s.values // else has() sees it as absent, whatever that counts as
		}
	}
	out, _, err := c.program.Eval(map[string]any{"claims": values, "source": w.Source})
	if err != nil {
		// What cannot be computed neither grants nor removes.
		return undecided, "the condition cannot be evaluated: " + err.Error()
	}
	if out == types.True {
		return holds, ""
	}
	return fails, "the condition is false"
}
