{{- define "shardgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* Of the release: short enough for what is appended to it. */}}
{{- define "shardgate.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "shardgate.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "shardgate.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "shardgate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "shardgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "shardgate.labels" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_")
  "app.kubernetes.io/name" (include "shardgate.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/part-of" "shardgate"
  "app.kubernetes.io/managed-by" .Release.Service }}
{{- merge $own .Values.commonLabels | toYaml }}
{{- end }}

{{- /* Of any object: list of the root, a mapping of further labels, one of further annotations. */}}
{{- define "shardgate.marks" -}}
{{- $root := index . 0 -}}
labels:
  {{- merge (deepCopy (index . 1)) (include "shardgate.labels" $root | fromYaml) | toYaml | nindent 2 }}
{{- with merge (deepCopy (index . 2)) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "shardgate.crdMetadata" -}}
{{- $keep := ternary (dict "helm.sh/resource-policy" "keep") (dict) .Values.crds.keep }}
{{- include "shardgate.marks" (list . (dict) $keep) }}
{{- end }}

{{- define "shardgate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "shardgate.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "shardgate.agentName" -}}
{{ include "shardgate.fullname" . }}-agent
{{- end }}

{{- define "shardgate.agentAccount" -}}
{{ default (include "shardgate.agentName" .) .Values.agent.serviceAccount.name }}
{{- end }}

{{- define "shardgate.image" -}}
{{- with .Values.image }}
{{- $name := ternary (printf "%s/%s" .registry .repository) .repository (ne .registry "") }}
{{- $tagged := printf "%s:%s" $name (default $.Chart.AppVersion .tag) }}
{{- ternary (printf "%s@%s" $tagged .digest) $tagged (ne .digest "") }}
{{- end }}
{{- end }}

{{- define "shardgate.certificateSecret" -}}
{{- if eq .Values.certificates.mode "certManager" -}}
{{ include "shardgate.fullname" . }}-webhook-certificate
{{- else if eq .Values.certificates.mode "secret" -}}
{{ required "certificates.secret.name: mode secret needs the name of a Secret with tls.crt and tls.key in the release's namespace" .Values.certificates.secret.name }}
{{- end }}
{{- end }}

{{- /* What the operator reads: `config`, and what other values decide. */}}
{{- define "shardgate.config" -}}
{{- $decided := dict
  "namespace" .Release.Namespace
  "serviceName" (printf "%s-webhook" (include "shardgate.fullname" .))
  "webhookPort" .Values.ports.webhook
  "metricsPort" .Values.ports.metrics
  "nodeAgents" .Values.agent.enabled
  "reportStaleAfterSeconds" .Values.agent.staleAfterSeconds }}
{{- if ne .Values.certificates.mode "self" }}
{{- $_ := set $decided "tlsCert" "/certificate/tls.crt" }}
{{- $_ := set $decided "tlsKey" "/certificate/tls.key" }}
{{- end }}
{{- with .Values.webhooks.clientAuthentication }}
{{- if .secretName }}
{{- $_ := set $decided "clientCa" (printf "/client-authority/%s" .key) }}
{{- $_ := set $decided "clientNames" .names }}
{{- end }}
{{- end }}
{{- merge $decided .Values.config | toYaml }}
{{- end }}

{{- /* Of the hooks' pods and the operator's. */}}
{{- define "shardgate.podPlace" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* A role with its binding: list of the root, kind (ClusterRole or Role), name, namespace, rules, account, annotations. */}}
{{- define "shardgate.role" -}}
{{- $root := index . 0 }}{{ $kind := index . 1 }}{{ $name := index . 2 }}{{ $namespace := index . 3 }}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
metadata:
  name: {{ $name }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  {{- include "shardgate.marks" (list $root (dict) (index . 6)) | nindent 2 }}
rules:
  {{- index . 4 | toYaml | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ $name }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  {{- include "shardgate.marks" (list $root (dict) (index . 6)) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ index . 5 }}
    namespace: {{ $root.Release.Namespace }}
{{- end }}

{{- /* An endpoint of metrics: list of the values of a monitor. */}}
{{- define "shardgate.endpoint" -}}
port: metrics
path: /metrics
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Accounts of the hooks' own, to which nobody may grant anything, would hold an uninstallation up. */}}
{{- define "shardgate.hooksHaveRights" -}}
{{- if or .Values.rbac.create (not .Values.serviceAccount.create) }}yes{{ end }}
{{- end }}
