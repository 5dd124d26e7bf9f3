{{- define "zmu.name" -}}
{{- .Release.Name | eq .Chart.Name | ternary .Chart.Name (printf "%s-%s" .Release.Name .Chart.Name) | trunc 44 | trimSuffix "-" }}
{{- end }}

{{- define "zmu.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "zmu.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "zmu.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "zmu.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "zmu.name" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "zmu.claim" -}}
{{ .Values.registry.volume.existingClaim | default (printf "%s-models" (include "zmu.name" .)) }}
{{- end }}

{{- /* Settings as variables: ZMU_KAFKA__BOOTSTRAP_SERVERS: "…". Lists and, at the third level, maps are JSON. */}}
{{- define "zmu.variables" -}}
{{- range $section, $keys := . }}
{{- if kindIs "map" $keys }}
{{- range $key, $value := $keys }}
{{- if not (kindIs "invalid" $value) }}
ZMU_{{ upper $section }}__{{ upper $key }}: {{ include "zmu.text" $value }}
{{- end }}
{{- end }}
{{- else if not (kindIs "invalid" $keys) }}
ZMU_{{ upper $section }}: {{ include "zmu.text" $keys }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Helm reads numbers as floats, and would print 86400000 as 8.64e+07. */}}
{{- define "zmu.text" -}}
{{- if or (kindIs "slice" .) (kindIs "map" .) }}{{ toJson . | quote }}
{{- else if kindIs "float64" . }}{{ if eq . (floor .) }}{{ int64 . | quote }}{{ else }}{{ . | quote }}{{ end }}
{{- else }}{{ . | quote }}{{ end }}
{{- end }}

{{- define "zmu.environment" -}}
envFrom:
  - configMapRef:
      name: {{ include "zmu.name" .root }}
  {{- range .root.Values.secrets.environment }}
  - secretRef:
      name: {{ . }}
  {{- end }}
{{- if or .own.extraEnv .own.gpu.count }}
env:
  {{- if .own.gpu.count }}
  - name: ZMU_DEVICE
    value: cuda
  {{- end }}
  {{- with .own.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "zmu.resources" -}}
{{- $limits := .resources.limits | default dict }}
{{- if .gpu.count }}{{ $limits = merge (dict "nvidia.com/gpu" (.gpu.count | int)) $limits }}{{ end }}
resources:
  {{- with .resources.requests }}
  requests: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $limits }}
  limits: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "zmu.mounts" -}}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  {{- if not .root.Values.registry.url }}
  - name: models
    mountPath: /models
    readOnly: {{ .readOnly }}
  {{- end }}
  {{- if .root.Values.secrets.settings }}
  - name: secrets
    mountPath: /run/secrets
    readOnly: true
  {{- end }}
  {{- if .root.Values.secrets.tls }}
  - name: tls
    mountPath: /etc/zmu/tls
    readOnly: true
  {{- end }}
  {{- with .own.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "zmu.pod" -}}
serviceAccountName: {{ include "zmu.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: {{ .own.tmpSize }}
  {{- if not .root.Values.registry.url }}
  - name: models
    persistentVolumeClaim:
      claimName: {{ include "zmu.claim" .root }}
  {{- end }}
  {{- with .root.Values.secrets.settings }}
  - name: secrets
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- with .root.Values.secrets.tls }}
  - name: tls
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- with .own.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "zmu.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}
