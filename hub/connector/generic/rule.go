package generic

import (
	"fmt"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/hub/connector"
)

// Rule says what an answer means by which nothing was done.
type Rule struct {
	When string `yaml:"when"`
	// Class is retryable, correctable or fatal, or, where that has a meaning, duplicate: the effect of this key is there already.
	Class string `yaml:"class"`
	// Code and Reason are expressions; NextStep is a sentence. What is empty has a general text.
	Code     string `yaml:"code"`
	Reason   string `yaml:"reason"`
	NextStep string `yaml:"next_step"`
}

// Duplicate is the class of a refusal because the effect is there already. It is no class of connector's.
const Duplicate connector.Class = "duplicate"

// Refusal is a compiled Rule.
type Refusal struct {
	When, Code, Reason Expr
	Class              connector.Class
	NextStep           string
}

// CompileRules reads rules whose class is one of known. Its error names the place.
func CompileRules(place string, rules []Rule, known []string, names ...string) (out []Refusal, err error) {
	for i, r := range rules {
		at := fmt.Sprintf("%s[%d]", place, i)
		if !slices.Contains(known, r.Class) {
			return nil, fmt.Errorf("%s: class %q is not known; use one of %s", at, r.Class, strings.Join(known, ", "))
		}
		if strings.TrimSpace(r.When) == "" {
			return nil, fmt.Errorf("%s.when: is empty; write a condition such as \"status == 409\"", at)
		}
		x := Refusal{Class: connector.Class(r.Class), NextStep: r.NextStep}
		for _, f := range []struct {
			name, src string
			into      *Expr
		}{{"when", r.When, &x.When}, {"code", r.Code, &x.Code}, {"reason", r.Reason, &x.Reason}} {
			if *f.into, err = Compile(f.src, names...); err != nil {
				return nil, fmt.Errorf("%s.%s: %w", at, f.name, err)
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// Outcome is the rejection of a posting on an order; code and reason are for rules that give none.
func (r Refusal) Outcome(orderNo, code, reason string, vars map[string]any) *connector.Outcome {
	if text, err := r.Code.Text(vars); err == nil && text != "" {
		code = text
	}
	if text, err := r.Reason.Text(vars); err == nil && text != "" {
		reason = text
	}
	next := r.NextStep
	switch {
	case next != "":
	case r.Class == connector.Retryable:
		next = ByItself
	case r.Class == connector.Fatal:
		next = "Correct the fact's source, the mapping or the account's rights, then replay the fact."
	default:
		next = "Mend what the ERP says, then replay the fact."
	}
	return Reject(r.Class, code, next, "The ERP refused a posting on order %s: %s.", orderNo, strings.TrimRight(reason, ". "))
}
