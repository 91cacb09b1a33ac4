package setup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// person answers questions at a terminal.
type person struct {
	in  *bufio.Scanner
	out io.Writer
}

// errNoAnswer ends the questions: the input ended, or somebody pressed Ctrl-D.
var errNoAnswer = errors.New("the questions were not answered: nothing was written")

// ask returns what was typed, or the proposal for an empty line. An answer that ok refuses is asked for again.
func (p *person) ask(question, proposal string, ok func(string) error) (string, error) {
	for {
		if proposal != "" {
			fmt.Fprintf(p.out, "%s [%s]: ", question, proposal)
		} else {
			fmt.Fprintf(p.out, "%s: ", question)
		}
		if !p.in.Scan() {
			fmt.Fprintln(p.out)
			return "", errNoAnswer
		}
		text := strings.TrimSpace(p.in.Text())
		if text == "" {
			text = proposal
		}
		if ok == nil {
			return text, nil
		}
		if err := ok(text); err != nil {
			fmt.Fprintf(p.out, "  %v\n", err)
			continue
		}
		return text, nil
	}
}

// yes asks for a decision.
func (p *person) yes(question string, proposal bool) (bool, error) {
	word := "y/N"
	if proposal {
		word = "Y/n"
	}
	var answer bool
	_, err := p.ask(question+" ("+word+")", "", func(text string) error {
		switch strings.ToLower(text) {
		case "":
			answer = proposal
		case "y", "yes":
			answer = true
		case "n", "no":
			answer = false
		default:
			return errors.New("answer y or n")
		}
		return nil
	})
	return answer, err
}

// choose asks for one of a list and returns its index.
func (p *person) choose(question string, options []string, proposal int) (int, error) {
	for i, o := range options {
		fmt.Fprintf(p.out, "  %d  %s\n", i+1, o)
	}
	chosen := 0
	_, err := p.ask(question, strconv.Itoa(proposal+1), func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > len(options) {
			return fmt.Errorf("answer with a number from 1 to %d", len(options))
		}
		chosen = n - 1
		return nil
	})
	return chosen, err
}

// needed refuses an empty answer.
func needed(text string) error {
	if text == "" {
		return errors.New("an answer is needed")
	}
	return nil
}
