{{/* The names and labels that all templates share. */}}
{{- define "countersign.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "countersign.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "countersign.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "countersign.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "countersign.selector" -}}
app.kubernetes.io/name: {{ include "countersign.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "countersign.labels" -}}
{{ include "countersign.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.extraLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "countersign.metadata" -}}
labels:
  {{- include "countersign.labels" . | nindent 2 }}
{{- with .Values.extraAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "countersign.serviceAccount" -}}
{{- default (include "countersign.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "countersign.tlsSecret" -}}
{{- default (printf "%s-tls" (include "countersign.fullname" .)) .Values.tls.secretName -}}
{{- end -}}

{{- define "countersign.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Whether values of Ratify's chart ask for objects of Ratify. */}}
{{- define "countersign.ratifyObjects" -}}
{{- if or .Values.akvCertConfig.enabled .Values.azurekeyvault.enabled .Values.oras.useHttp .Values.oras.authProviders.azureWorkloadIdentityEnabled .Values.oras.authProviders.azureManagedIdentityEnabled -}}yes{{- end -}}
{{- end -}}

{{/* What the library's objects are, or that there are none: the Azure Policy add-on brings its own. */}}
{{- define "countersign.library" -}}
{{- if and .Values.library.enabled (not .Values.aks.azurePolicyAddon) -}}yes{{- end -}}
{{- end -}}

{{- define "countersign.mutation" -}}
{{- if and (or .Values.mutation.enabled .Values.provider.enableMutation) (not .Values.aks.azurePolicyAddon) -}}yes{{- end -}}
{{- end -}}

{{/* Values that are each right and wrong together. */}}
{{- define "countersign.check" -}}
{{- if ge (int .Values.provider.timeoutSeconds) (int .Values.gatekeeper.validatingWebhookTimeoutSeconds) -}}
{{- fail (printf "provider.timeoutSeconds is %d and gatekeeper.validatingWebhookTimeoutSeconds %d: a webhook that gives up first admits everything (failurePolicy: Ignore). Let the provider's be smaller, and Gatekeeper's what it was installed with" (int .Values.provider.timeoutSeconds) (int .Values.gatekeeper.validatingWebhookTimeoutSeconds)) -}}
{{- end -}}
{{- if and (or .Values.mutation.enabled .Values.provider.enableMutation) (ge (int .Values.mutation.timeoutSeconds) (int .Values.gatekeeper.mutatingWebhookTimeoutSeconds)) -}}
{{- fail (printf "mutation.timeoutSeconds is %d and gatekeeper.mutatingWebhookTimeoutSeconds %d: let the provider's be smaller. Gatekeeper is installed with 1 by default; install it with 2" (int .Values.mutation.timeoutSeconds) (int .Values.gatekeeper.mutatingWebhookTimeoutSeconds)) -}}
{{- end -}}
{{- if and .Values.aks.azurePolicyAddon (or .Values.mutation.enabled .Values.provider.enableMutation) -}}
{{- fail "mutation.enabled with aks.azurePolicyAddon: the add-on's Gatekeeper takes no mutators but its own. Set mutation.enabled=false" -}}
{{- end -}}
{{- if and (include "countersign.ratifyObjects" .) (not .Values.compatibility.ratify) -}}
{{- fail "akvCertConfig, azurekeyvault and oras are Ratify's values, and make objects of Ratify: set compatibility.ratify=true, or write a ClusterTrustPolicy with azureKeyVault and registries" -}}
{{- end -}}
{{- if and (eq .Values.tls.mode "certManager") (not .Values.tls.certManager.issuerRef.name) -}}
{{- fail "tls.mode is certManager and tls.certManager.issuerRef.name is empty: name an Issuer or a ClusterIssuer that is a CA" -}}
{{- end -}}
{{- if and (eq .Values.tls.mode "secret") (not .Values.tls.secretName) -}}
{{- fail "tls.mode is secret and tls.secretName is empty: name the Secret with tls.crt, tls.key and ca.crt" -}}
{{- end -}}
{{- end -}}

{{/* What the watcher does with reports, and with Events on workloads. */}}
{{- define "countersign.watchReports" -}}
- {apiGroups: [openreports.io], resources: [reports], verbs: [get, list, create, patch, delete]}
- {apiGroups: [wgpolicyk8s.io], resources: [policyreports], verbs: [get, list, create, patch, delete]}
{{- end -}}

{{- define "countersign.watchEvents" -}}
- {apiGroups: [""], resources: [events], verbs: [create]}
- {apiGroups: [""], resources: [pods, replicationcontrollers], verbs: [get]}
- {apiGroups: [apps], resources: [deployments, replicasets, statefulsets, daemonsets], verbs: [get]}
- {apiGroups: [batch], resources: [jobs, cronjobs], verbs: [get]}
{{- end -}}
