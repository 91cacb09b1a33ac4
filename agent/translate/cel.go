package translate

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/linekeeper/linekeeper/proto/exact"
)

// The two environments: without and with "item".
var celEnvs = [2]func() (*cel.Env, error){
	sync.OnceValues(func() (*cel.Env, error) { return newCELEnv(false) }),
	sync.OnceValues(func() (*cel.Env, error) { return newCELEnv(true) }),
}

func newCELEnv(withItem bool) (*cel.Env, error) {
	dyn := cel.DynType
	opts := append(exact.Library(),
		cel.Variable("payload", dyn), cel.Variable("topic", cel.StringType), cel.Variable("tag", cel.StringType),
		cel.Variable("source", cel.StringType), cel.Variable("position", cel.StringType),
		cel.Variable("topic_parts", cel.ListType(cel.StringType)),
		cel.Variable("labels", dyn), cel.Variable("tags", dyn))
	if withItem {
		opts = append(opts, cel.Variable("item", dyn))
	}
	return cel.NewEnv(opts...)
}

func compileCEL(src string, withItem bool) (*expr, error) {
	n := 0
	if withItem {
		n = 1
	}
	env, err := celEnvs[n]()
	if err != nil {
		return nil, err
	}
	ast, iss := env.Compile(src)
	if err := iss.Err(); err != nil {
		return nil, fmt.Errorf("%q is not an expression: %s", src, firstLine(err.Error()))
	}
	if err := exact.RefuseNumberFirst(ast); err != nil {
		return nil, fmt.Errorf("%q: %w", src, err)
	}
	// Not optimized: that would look up "x in [1, 2]" by hash, where an exact decimal never equals an integer.
	prg, err := env.Program(ast, cel.CostLimit(costLimit))
	if err != nil {
		return nil, fmt.Errorf("%q: %w", src, err)
	}
	e := &expr{src: src, prg: prg}
	return e, e.roots(ast)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.TrimPrefix(line, "ERROR: <input>:")
}

// localTimes are the forms of a time without a zone, read in the plant's.
var localTimes = []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04"}

// readTime reads a time of a payload: a time, RFC 3339, or a local time of the plant.
func readTime(v any, zone *time.Location) (time.Time, bool) {
	var t time.Time
	switch v := v.(type) {
	case time.Time:
		t = v
	case string:
		var err error
		if t, err = time.Parse(time.RFC3339Nano, v); err == nil {
			break
		}
		for _, layout := range localTimes {
			if t, err = time.ParseInLocation(layout, v, zone); err == nil {
				break
			}
		}
		if err != nil {
			return t, false
		}
	default:
		return t, false
	}
	return t, !t.IsZero() && t.Year() >= 1 && t.Year() <= 9999
}
