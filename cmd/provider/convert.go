package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/ratify"
)

// maxConverted bounds one file of another project's objects.
const maxConverted = 1 << 20

func convertCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "convert",
		Short: "Say in our documents what objects of another project say",
	}
	command.AddCommand(convertRatifyCommand())
	return command
}

func convertRatifyCommand() *cobra.Command {
	var namespace string
	command := &cobra.Command{
		Use:   "ratify FILE…",
		Short: "Turn Ratify's objects into ClusterTrustPolicies",
		Long: `Reads Ratify's Stores, Verifiers, Policies, KeyManagementProviders and
CertificateStores, and prints the ClusterTrustPolicies that demand the same. All
of them go into one call: they refer to each other.

What cannot be carried over is said on standard error, and never weakened: exit 1
means that some of it is missing.`,
		Example: `  kubectl get stores,verifiers,policies,keymanagementproviders -A -o yaml > ratify.yaml
  countersign convert ratify ratify.yaml > policies/ratify.yaml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, files []string) error {
			return convertRatify(files, namespace, command.OutOrStdout(), command.ErrOrStderr())
		},
	}
	command.Flags().StringVar(&namespace, "namespace", "gatekeeper-system", "where Ratify itself is: its CertificateStores count everywhere")
	return command
}

func convertRatify(files []string, namespace string, stdout, stderr io.Writer) error {
	var objects []ratify.Object
	for _, file := range files {
		content, err := readConverted(file)
		if err != nil {
			return err
		}
		found, err := ratify.Parse(content)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		objects = append(objects, found...)
	}
	if len(objects) == 0 {
		return errors.New("there are no objects of Ratify in it")
	}
	policies, notes := ratify.Translate(objects, namespace)
	missing := false
	for _, note := range notes {
		missing = missing || note.Fatal
		if _, err := fmt.Fprintln(stderr, note); err != nil {
			return err
		}
	}
	for _, policy := range policies {
		if policy.Broken != nil {
			continue // its note was printed
		}
		document, notes := policy.Document()
		text, err := ratify.YAML(document)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(stdout, "---\n%s", text); err != nil {
			return err
		}
		for _, note := range notes {
			if _, err := fmt.Fprintf(stderr, "ClusterTrustPolicy %s: %s\n", document.Metadata.Name, note); err != nil {
				return err
			}
		}
	}
	if missing {
		return exitError(exitRefused)
	}
	return nil
}

func readConverted(path string) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // G304: the user names the file
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxConverted+1))
	if err == nil && len(content) > maxConverted {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxConverted)
	}
	return content, err
}
