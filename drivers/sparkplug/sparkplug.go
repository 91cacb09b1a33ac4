// Package sparkplug reads Sparkplug B edge nodes.
package sparkplug
